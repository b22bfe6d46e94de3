use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use proxy_common::{EndpointList, Family, FrontendKind, Protocol, WhenEmpty};

use super::PlannedFrontend;
use crate::state::ObjectName;

/// One service port of one family: the unit that has endpoints, affinity and policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortId {
    /// The Service.
    pub service: ObjectName,
    /// Name of the port; may be empty.
    pub port_name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// IP family.
    pub family: Family,
}

/// `namespace/name:port`, or `namespace/name` for an unnamed port.
impl fmt::Display for ServicePortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)?;
        if self.port_name.is_empty() { Ok(()) } else { write!(f, ":{}", self.port_name) }
    }
}

/// What should be programmed for one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortPlan {
    /// The frontends that this service port has won, sorted. Never two with the same address and port.
    pub frontends: Vec<PlannedFrontend>,
    /// Endpoints of the cluster list, the local list, and those whose flows go on though they take no new ones (in no
    /// list): serving and terminating; of UDP all that are serving; of TCP all, where
    /// [`super::PlannerConfig::keep_tcp_endpoints`] asks for it. Sorted by their `address:port` text, each address and port once.
    pub endpoints: Vec<PlannedEndpoint>,
    /// Session affinity timeout in seconds.
    pub affinity_seconds: Option<u32>,
    /// internalTrafficPolicy Local.
    pub internal_local: bool,
    /// externalTrafficPolicy Local, in effect.
    pub external_local: bool,
    /// Whether any endpoint in the cluster is ready, or serving and terminating.
    pub has_any: bool,
    /// loadBalancerSourceRanges of this family; empty is unrestricted.
    pub source_ranges: Vec<IpNet>,
    /// Clients that are let in beside them: the Service's own load-balancer addresses of this family, when this
    /// node's own address is in the ranges. A node that has such an address on a link uses it as its source
    /// (KUBE-PROXY.md 1.9).
    pub exempt_sources: Vec<IpAddr>,
}

/// One endpoint of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedEndpoint {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// On this node.
    pub local: bool,
    /// Shutting down.
    pub terminating: bool,
    /// Or-ed [`EndpointList`] bits; 0 for an endpoint that takes no new flows.
    pub lists: u8,
}

impl PlannedEndpoint {
    /// Whether the endpoint is in `list`.
    #[must_use]
    pub fn is_in(&self, list: EndpointList) -> bool {
        self.lists & list as u8 != 0
    }
}

impl ServicePortPlan {
    /// The list that clients inside the cluster are sent to when they ask for a frontend of this kind: an
    /// external address is served from the cluster list whatever its policy (KUBE-PROXY.md 1.10).
    #[must_use]
    pub fn internal_list(&self, kind: FrontendKind) -> EndpointList {
        if kind == FrontendKind::ClusterIp && self.internal_local {
            EndpointList::Local
        } else {
            EndpointList::Cluster
        }
    }

    /// The list that traffic from outside is sent to; [`EndpointList::None`] for a cluster IP.
    #[must_use]
    pub fn external_list(&self, kind: FrontendKind) -> EndpointList {
        match kind {
            FrontendKind::ClusterIp => EndpointList::None,
            _ if self.external_local => EndpointList::Local,
            _ => EndpointList::Cluster,
        }
    }

    /// What a client meets while `list` is empty: a refusal when there is no endpoint anywhere, a drop when
    /// it is a policy that keeps it from those there are (KUBE-PROXY.md 1.7).
    #[must_use]
    pub fn when_empty(&self, list: EndpointList) -> WhenEmpty {
        if list == EndpointList::Local && self.has_any { WhenEmpty::Drop } else { WhenEmpty::Reject }
    }

    /// All clients that load-balancer addresses let in, sorted and each once; empty is everybody.
    #[must_use]
    pub fn allowed_sources(&self) -> Vec<IpNet> {
        if self.source_ranges.is_empty() {
            return Vec::new();
        }
        let exempt = self.exempt_sources.iter().map(|address| IpNet::from(*address));
        let mut allowed: Vec<_> = self.source_ranges.iter().copied().chain(exempt).collect();
        allowed.sort_unstable();
        allowed.dedup();
        allowed
    }

    /// The endpoints of one list, in order.
    pub fn list(&self, list: EndpointList) -> impl Iterator<Item = &PlannedEndpoint> {
        self.endpoints.iter().filter(move |endpoint| endpoint.is_in(list))
    }
}

/// One step from what was planned before to what is planned now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanChange {
    /// Which service port.
    pub id: ServicePortId,
    /// Its new plan; `None` when it is gone.
    pub plan: Option<Arc<ServicePortPlan>>,
}
