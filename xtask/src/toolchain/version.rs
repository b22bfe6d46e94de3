//! Versions as tools print them.

use std::fmt;

/// Major, minor and patch; what follows them (`-nightly`, `+dfsg1`) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// The first word of `text` that is a version: `rustc 1.96.0 (ac68faa20 2026-05-25)`.
    pub(super) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse)
    }

    /// The version on the line that begins with `label`: `LLVM version: 22.1.8`.
    pub(super) fn labelled(text: &str, label: &str) -> Option<Self> {
        text.lines().find_map(|line| line.strip_prefix(label)).and_then(Self::find)
    }

    fn parse(word: &str) -> Option<Self> {
        let numbers = word.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
        let mut parts = numbers.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        Some(Self(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_tools_print_them() {
        let cases = [
            ("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)", Version(1, 96, 0)),
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Version(1, 97, 0)),
            ("bpf-linker 0.13.0\n", Version(0, 13, 0)),
            ("22.1", Version(22, 1, 0)),
            ("1.96.0+dfsg1-1~deb12u2", Version(1, 96, 0)),
        ];
        for (text, version) in cases {
            assert_eq!(Version::find(text), Some(version), "{text}");
        }
        for text in ["", "rustc", "nightly-2026", "1", "1.", "v1"] {
            assert_eq!(Version::find(text), None, "{text}");
        }
    }

    #[test]
    fn labelled_line() {
        let text = "rustc 1.96.0 (x)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(Version::labelled(text, "LLVM version:"), Some(Version(22, 1, 8)));
        assert_eq!(Version::labelled(text, "gcc version:"), None);
    }

    #[test]
    fn order() {
        assert!(Version(1, 100, 0) > Version(1, 96, 9));
        assert_eq!(Version(1, 96, 0).to_string(), "1.96.0");
    }
}
