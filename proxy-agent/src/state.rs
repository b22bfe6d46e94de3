//! The slim objects the agent keeps, and their indexes. Nothing else of an API object is held.

mod address;
mod change;
mod endpoint_slice;
mod ingest;
mod name;
mod node;
mod selectors;
mod service;
mod store;

pub(crate) use address::{family_of, parse_net};
pub use change::Change;
pub use endpoint_slice::{AddressType, Endpoint, EndpointSlice, Hints, SlicePort};
pub use ingest::Ingest;
pub use name::ObjectName;
pub use node::Node;
pub use selectors::{HEADLESS_LABEL, PROXY_NAME_LABEL, selects_service, selects_slice};
pub use service::{Service, ServicePort};
pub use store::{Dirty, Store};
