use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use proxy_common::{Family, FrontendKind, Protocol};

use super::{
    HealthCheck, ObjectRef, PlannedFrontend, PlannerConfig, Problem, ProblemReason, ServicePortId,
    ServicePortPlan,
    claims::{Claim, Place, Right},
    health_check::local_ready,
    here::Here,
    select::{Keep, Rules, Selection, candidates, select},
};
use crate::state::{ObjectName, Service, ServicePort, Store, family_of};

/// What one Service would be if no other claimed what it claims.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Its service ports.
    pub(super) ports: Vec<DraftPort>,
    /// Where its health is asked for, at most once for each family.
    pub(super) health_checks: Vec<(Family, HealthCheck)>,
    /// What of the Service and its slices is wrong, clashes apart.
    pub(super) problems: Vec<Problem>,
}

/// One service port of one family, without the frontends that it has won.
#[derive(Debug)]
pub(super) struct DraftPort {
    /// Which one.
    pub(super) id: ServicePortId,
    /// What it claims.
    pub(super) wanted: Wanted,
    /// All else, with no frontends.
    pub(super) plan: ServicePortPlan,
}

/// The frontends that a service port claims, and with what right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Sorted, each address and port once.
    pub(super) frontends: Box<[PlannedFrontend]>,
    /// Age of the Service. A Service that does not say is younger than any that does.
    pub(super) created: Timestamp,
    /// Position in the Service's ports.
    pub(super) index: usize,
    /// Whether it has a node port, also when no address serves it.
    pub(super) node_port: bool,
}

impl Wanted {
    /// The claims of the service port of this id.
    pub(super) fn claims(&self, id: &ServicePortId) -> impl Iterator<Item = (Place, Claim)> {
        self.frontends.iter().map(|frontend| {
            let place = Place { address: frontend.address, port: frontend.port, protocol: id.protocol };
            let claim = Claim {
                right: Right::of(frontend.kind),
                created: self.created,
                service: id.service.clone(),
                index: self.index,
            };
            (place, claim)
        })
    }
}

/// Drafts a Service, which need not exist.
pub(super) fn draft(store: &Store, name: &ObjectName, here: &Here, config: &PlannerConfig) -> Draft {
    let mut draft = Draft::default();
    for slice in store.slices_of(name) {
        let object = || ObjectRef::EndpointSlice(slice.name.clone());
        draft.problems.extend(invalid(object, slice.problems.iter().cloned()));
    }
    let Some(service) = store.service(name) else { return draft };
    let mut messages = service.problems.clone();
    let is_repeated = |index: usize, port: &ServicePort| {
        let before = &service.ports[..index];
        before.iter().any(|other| other.name == port.name && other.protocol == port.protocol)
    };
    let (repeated, served): (Vec<_>, Vec<_>) =
        service.ports.iter().enumerate().partition(|(index, port)| is_repeated(*index, port));
    messages.extend(repeated.into_iter().map(|(index, port)| {
        let protocol = protocol_name(port.protocol);
        format!(
            "spec.ports[{index}] has the name {:?} and protocol {protocol} of a port before it: it is not served",
            port.name
        )
    }));
    draft.ports.reserve_exact(service.cluster_ips.len() * served.len());
    for cluster_ip in &service.cluster_ips {
        let family = family_of(*cluster_ip);
        messages.extend(open_to_all(service, family));
        for (index, _) in &served {
            let wanted = wanted(service, *cluster_ip, *index, here);
            draft.ports.push(draft_port(store, service, wanted, here, config, family));
        }
        if let (Some(port), false) = (service.health_check_port, served.is_empty()) {
            let endpoints = local_ready(store.slices_of(name), family);
            draft.health_checks.push((family, HealthCheck { port, endpoints }));
        }
    }
    draft.problems.extend(invalid(|| ObjectRef::Service(name.clone()), messages));
    draft
}

fn invalid(
    object: impl Fn() -> ObjectRef,
    messages: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = Problem> {
    let reason = ProblemReason::InvalidField;
    messages.into_iter().map(move |message| Problem { object: object(), reason, message })
}

fn draft_port(
    store: &Store,
    service: &Service,
    wanted: Wanted,
    here: &Here,
    config: &PlannerConfig,
    family: Family,
) -> DraftPort {
    let port = &service.ports[wanted.index];
    // Whether there is an address that serves the node port plays no part, nor who wins an address.
    let from_outside = wanted.node_port || wanted.frontends.iter().any(|frontend| !is_cluster_ip(frontend));
    let external_local = service.external_local && from_outside;
    let rules = Rules {
        cluster: !service.internal_local || from_outside,
        local: service.internal_local || external_local,
        zone: here.zone(),
        keep: match port.protocol {
            Protocol::Udp => Keep::Serving,
            Protocol::Tcp if config.keep_tcp_endpoints => Keep::Present,
            _ => Keep::Finishing,
        },
    };
    let candidates = candidates(store.slices_of(&service.name), family, &port.name, port.protocol);
    let Selection { endpoints, has_any } = select(&candidates, rules);
    let source_ranges = source_ranges(service, family);
    let plan = ServicePortPlan {
        frontends: Vec::new(),
        endpoints,
        affinity_seconds: service.affinity_seconds,
        internal_local: service.internal_local,
        external_local,
        has_any,
        exempt_sources: exempt_sources(service, family, &source_ranges, here),
        source_ranges,
    };
    let id = ServicePortId {
        service: service.name.clone(),
        port_name: port.name.clone(),
        protocol: port.protocol,
        family,
    };
    DraftPort { id, wanted, plan }
}

fn is_cluster_ip(frontend: &PlannedFrontend) -> bool {
    frontend.kind == FrontendKind::ClusterIp
}

/// The frontends of one port in the family of `cluster_ip`. An address that the Service has in two roles is
/// one frontend: of a load balancer address rather than of an external IP, because source ranges apply.
fn wanted(service: &Service, cluster_ip: IpAddr, index: usize, here: &Here) -> Wanted {
    let port = &service.ports[index];
    let of_family = |addresses: &[IpAddr], kind, port| {
        let of_family = addresses.iter().filter(|address| family_of(**address) == family_of(cluster_ip));
        of_family
            .map(|address| {
                let local = kind == FrontendKind::NodePort || here.is_own(*address);
                PlannedFrontend { kind, address: *address, port, local }
            })
            .collect::<Vec<_>>()
    };
    let mut frontends = of_family(&[cluster_ip], FrontendKind::ClusterIp, port.port);
    let mut more = of_family(&service.load_balancer_ips, FrontendKind::LoadBalancer, port.port);
    if here.external_ips() {
        more.extend(of_family(&service.external_ips, FrontendKind::ExternalIp, port.port));
    }
    if let Some(node_port) = port.node_port {
        more.extend(of_family(here.node_ports(), FrontendKind::NodePort, node_port));
    }
    for frontend in more {
        let same = |known: &PlannedFrontend| (known.address, known.port) == (frontend.address, frontend.port);
        if !frontends.iter().any(same) {
            frontends.push(frontend);
        }
    }
    frontends.sort_unstable();
    Wanted {
        frontends: frontends.into(),
        created: service.created.unwrap_or(Timestamp::MAX),
        index,
        node_port: port.node_port.is_some(),
    }
}

/// The source ranges of one family; a /0 among them lifts them all (KUBE-PROXY.md 1.2).
fn source_ranges(service: &Service, family: Family) -> Vec<IpNet> {
    let of_family = service.source_ranges.iter().filter(|range| family_of(range.addr()) == family);
    let mut ranges: Vec<_> = of_family.copied().collect();
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        ranges.clear();
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn exempt_sources(service: &Service, family: Family, ranges: &[IpNet], here: &Here) -> Vec<IpAddr> {
    if !here.primary(family).is_some_and(|primary| ranges.iter().any(|range| range.contains(&primary))) {
        return Vec::new();
    }
    let of_family = service.load_balancer_ips.iter().filter(|address| family_of(**address) == family);
    let mut exempt: Vec<_> = of_family.copied().collect();
    exempt.sort_unstable();
    exempt.dedup();
    exempt
}

/// Ranges of the other family only leave this one open, as with kube-proxy, which does not say so.
fn open_to_all(service: &Service, family: Family) -> Option<String> {
    let has_address = service.load_balancer_ips.iter().any(|address| family_of(*address) == family);
    let restricts_this = service.source_ranges.iter().any(|range| family_of(range.addr()) == family);
    (has_address && !restricts_this && !service.source_ranges.is_empty()).then(|| {
        format!(
            "spec.loadBalancerSourceRanges has no {} range: the {0} load balancer addresses are open to every \
             client; add ranges of this family to limit them",
            family.name()
        )
    })
}

/// As in `spec.ports[].protocol`.
pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Any => "any protocol",
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}
