use std::{net::IpAddr, sync::Arc};

/// What the agent keeps of this node's Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Label `topology.kubernetes.io/zone`, if set and not empty.
    pub zone: Option<Arc<str>>,
    /// `status.addresses`: every InternalIP in order, then every ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// Whether load balancers outside are to send no new traffic here, because the node is about to go: it is
    /// being deleted, or the cluster autoscaler will delete it (KEP-3836).
    pub leaving: bool,
    /// What of the object was refused, in words for an operator; each names the field.
    pub problems: Vec<String>,
}

impl Node {
    /// Whether Services are planned the same with the one and the other.
    pub(super) fn plans_like(&self, other: &Self) -> bool {
        let Self { zone, addresses, leaving: _, problems } = self;
        (zone, addresses, problems) == (&other.zone, &other.addresses, &other.problems)
    }
}
