use std::{fmt, path::PathBuf};

/// Something in a folder of manifests that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// The file.
    pub file: PathBuf,
    /// Line in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// What it is and what happens instead, in words for an operator.
    pub message: String,
}

/// `file:line: message`.
impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}
