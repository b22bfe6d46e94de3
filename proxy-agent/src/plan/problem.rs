use std::fmt;

/// Something of an object that is not programmed as it was asked for. The rest of the object, and every
/// other object, is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// `Service namespace/name`, `EndpointSlice namespace/name` or `Node`.
    pub object: String,
    /// What it is, in words for an operator, with the field and what happens instead.
    pub message: String,
}

/// `object: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}
