use std::net::IpAddr;

use super::{EndpointSlice, Node, ObjectName, Service};

/// What a source saw, or the kernel said. Complete lists come first (one of each kind that the source follows), then single
/// changes; after a lost watch a complete list may come again and replaces all that was known.
#[derive(Debug)]
pub enum Change {
    /// The complete list of Services.
    Services(Vec<Service>),
    /// The complete list of EndpointSlices.
    Slices(Vec<EndpointSlice>),
    /// One Service is there, new or changed.
    Service(Service),
    /// One Service is gone.
    ServiceGone(ObjectName),
    /// One EndpointSlice is there, new or changed.
    Slice(EndpointSlice),
    /// One EndpointSlice is gone.
    SliceGone(ObjectName),
    /// This node's Node object, or that there is none.
    Node(Option<Node>),
    /// Every address on the node's links now, but for loopback and link-local IPv6 addresses. The first comes
    /// before anything is planned: without it, a restart would take back node ports on addresses that the Node
    /// object does not name.
    LocalAddresses(Vec<IpAddr>),
}
