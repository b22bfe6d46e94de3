use std::fmt;

use crate::state::ObjectName;

/// Something of an object that is not programmed as it was asked for. The rest of the object, and every
/// other object, is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// Whose problem it is.
    pub object: ObjectRef,
    /// What kind of problem it is.
    pub reason: ProblemReason,
    /// What it is, in words for an operator, with the field and what happens instead.
    pub message: String,
}

/// An API object of a kind that the agent follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectRef {
    /// A Service.
    Service(ObjectName),
    /// An EndpointSlice.
    EndpointSlice(ObjectName),
    /// The Node that the agent runs on.
    Node,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProblemReason {
    /// Something in the object cannot be read, or does not mean what it seems to.
    InvalidField,
    /// Another Service has an address and port that this one asks for.
    AddressConflict,
    /// The node has no address that could serve node ports.
    NoNodeAddress,
}

impl ProblemReason {
    /// One word for it, as in the reason of an event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidField => "InvalidField",
            Self::AddressConflict => "AddressConflict",
            Self::NoNodeAddress => "NoNodeAddress",
        }
    }
}

/// `object: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// `Service namespace/name`, `EndpointSlice namespace/name` or `Node`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::EndpointSlice(name) => write!(f, "EndpointSlice {name}"),
            Self::Node => f.write_str("Node"),
        }
    }
}
