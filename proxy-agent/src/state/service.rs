use std::{collections::HashSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use proxy_common::Protocol;
use uuid::Uuid;

use super::ObjectName;

/// What the agent keeps of a Service. Fields hold what was readable; what was not is in `problems`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`, by which events find the object.
    pub uid: Option<Uuid>,
    /// `metadata.creationTimestamp`; when two Services claim one address, the older wins.
    pub created: Option<Timestamp>,
    /// The cluster IP of each family that the Service has one of, at most one a family. Empty for a
    /// Service that is not proxied (headless, ExternalName).
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`, both families.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with `ipMode` unset or `VIP`, both families.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, host bits masked, both families.
    pub source_ranges: Vec<IpNet>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is `Local` and the type lets it count (KUBE-PROXY.md 1.2).
    pub external_local: bool,
    /// `spec.healthCheckNodePort` of a Service of type LoadBalancer with externalTrafficPolicy Local: where the
    /// node says how many of its endpoints are here (KUBE-PROXY.md 1.12).
    pub health_check_port: Option<u16>,
    /// Session affinity timeout in seconds, 1 to 86,400; `None` without affinity.
    pub affinity_seconds: Option<u32>,
    /// What of the object was refused, in words for an operator; each names the field.
    pub problems: Vec<String>,
}

impl Service {
    /// Whether its frontends, or where its health is asked for, may change when the node gets or loses these addresses.
    pub(super) fn depends_on(&self, addresses: &HashSet<IpAddr>) -> bool {
        let mut own = self.cluster_ips.iter().chain(&self.external_ips).chain(&self.load_balancer_ips);
        self.ports.iter().any(|port| port.node_port.is_some())
            || self.health_check_port.is_some()
            || own.any(|own| addresses.contains(own))
    }
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when the Service has a single unnamed port.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port, 1 to 65,535.
    pub port: u16,
    /// Node port; `None` when there is none.
    pub node_port: Option<u16>,
}
