use std::{net::IpAddr, sync::Arc};

/// What the agent keeps of this node's Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Label `topology.kubernetes.io/zone`, if set and not empty.
    pub zone: Option<Arc<str>>,
    /// `status.addresses`: every InternalIP in order, then every ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// What of the object was refused, in words for an operator; each names the field.
    pub problems: Vec<String>,
}
