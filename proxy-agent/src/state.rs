//! The slim objects the agent keeps, and their indexes. Nothing else of an API object is held.

mod change;
mod endpoint_slice;
mod name;
mod node;
mod service;
mod store;

pub use change::Change;
pub use endpoint_slice::{AddressType, Endpoint, EndpointSlice, Hints, SlicePort};
pub use name::ObjectName;
pub use node::Node;
pub use service::{Service, ServicePort};
pub use store::{Dirty, Store};
