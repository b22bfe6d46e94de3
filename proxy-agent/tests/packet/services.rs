//! The Services: random plans, given to the real agent library, and what they mean as a plain table.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use proxy_agent::{
    datapath::Datapath,
    plan::{PlanChange, PlannedEndpoint, PlannedFrontend, ServicePortId, ServicePortPlan},
    state::ObjectName,
};
use proxy_common::{EndpointList, Family, FrontendKind, Protocol};
use rand::{Rng as _, rngs::StdRng, seq::IteratorRandom as _};

use crate::{
    place::{NODE4, NODE6, is_local},
    tables::Tables,
};

/// Service ports of each family.
pub(crate) const SERVICE_PORTS: u8 = 18;

/// Where packets to one address, port and protocol belong.
#[derive(Clone, Debug)]
pub(crate) struct Frontend {
    pub(crate) plan: Arc<ServicePortPlan>,
    pub(crate) kind: FrontendKind,
    /// Service port id, as the agent gave it out.
    pub(crate) service_port: u32,
}

/// The Services as they are now.
#[derive(Debug, Default)]
pub(crate) struct Services {
    plans: BTreeMap<ServicePortId, Arc<ServicePortPlan>>,
    pub(crate) frontends: BTreeMap<(IpAddr, u16, Protocol), Frontend>,
    /// The keys of `frontends`.
    pub(crate) keys: Vec<(IpAddr, u16, Protocol)>,
}

impl Services {
    /// Random Services, all in place.
    pub(crate) fn new(datapath: &mut Datapath, tables: &Tables, random: &mut StdRng) -> Self {
        let mut services = Self::default();
        for family in [Family::V4, Family::V6] {
            for number in 0..SERVICE_PORTS {
                services.plans.insert(id(number, family), Arc::new(plan(number, family, random)));
            }
        }
        let all: Vec<_> = services.plans.iter().map(|(id, plan)| (id.clone(), Arc::clone(plan))).collect();
        let report = datapath.reconcile(&all).unwrap();
        assert!(report.refused.is_empty() && report.problems.is_empty(), "{report:?}");
        services.read(tables);
        services
    }

    /// Gives one service port another plan: endpoints come, go and change their lists, policies turn.
    pub(crate) fn change(&mut self, datapath: &mut Datapath, tables: &Tables, random: &mut StdRng) {
        let family = if random.random() { Family::V4 } else { Family::V6 };
        let number = random.random_range(0..SERVICE_PORTS);
        let (id, plan) = (id(number, family), Arc::new(plan(number, family, random)));
        let report = datapath.apply(&[PlanChange { id: id.clone(), plan: Some(Arc::clone(&plan)) }]);
        assert!(report.refused.is_empty() && report.problems.is_empty(), "{report:?}");
        self.plans.insert(id, plan);
        self.read(tables);
    }

    /// Whether the address is a cluster IP, which answers for the ports it does not have.
    pub(crate) fn is_cluster_ip(&self, address: IpAddr) -> bool {
        self.plans
            .values()
            .flat_map(|plan| &plan.frontends)
            .any(|frontend| (frontend.kind, frontend.address) == (FrontendKind::ClusterIp, address))
    }

    /// Which ids the agent has given out.
    fn read(&mut self, tables: &Tables) {
        self.frontends.clear();
        for (id, plan) in &self.plans {
            for PlannedFrontend { kind, address, port, .. } in &plan.frontends {
                let entry = tables.frontend(*address, *port, id.protocol);
                let service_port =
                    entry.unwrap_or_else(|| panic!("{address} {port} is not programmed")).service_port;
                let frontend = Frontend { plan: Arc::clone(plan), kind: *kind, service_port };
                self.frontends.insert((*address, *port, id.protocol), frontend);
            }
        }
        self.keys = self.frontends.keys().copied().collect();
    }
}

impl Frontend {
    /// Whether only some clients are served.
    pub(crate) fn has_source_ranges(&self) -> bool {
        self.kind == FrontendKind::LoadBalancer && !self.plan.source_ranges.is_empty()
    }

    pub(crate) fn serves(&self, client: IpAddr) -> bool {
        let mut ranges = self.plan.source_ranges.iter();
        !self.has_source_ranges()
            || ranges.any(|range| range.contains(&client))
            || self.plan.exempt_sources.contains(&client)
    }
}

/// Every address that an endpoint may have: pods of this node, of others behind each kind of uplink, the host
/// itself, another host, and what no route leads to.
pub(crate) fn endpoint_addresses(family: Family) -> Vec<IpAddr> {
    let v4 = |a: [u8; 4]| IpAddr::from(a);
    let pod6 = |net: u16, last: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0x244, net, 0, 0, 0, 0, last));
    if family == Family::V4 {
        let pods = [[10, 244, 1, 1], [10, 244, 1, 2], [10, 244, 1, 3], [10, 244, 2, 1], [10, 244, 2, 2]];
        let others = [[10, 244, 3, 1], [10, 244, 5, 1], [192, 0, 2, 20], [10, 244, 9, 1]];
        pods.into_iter().chain(others).map(v4).chain([NODE4[0].into()]).collect()
    } else {
        let pods = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (5, 1), (9, 1)];
        let other = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x20);
        pods.into_iter().map(|(net, last)| pod6(net, last)).chain([other.into(), NODE6[0].into()]).collect()
    }
}

fn id(number: u8, family: Family) -> ServicePortId {
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][usize::from(number % 3)];
    let name = format!("s{number}-{}", if family == Family::V4 { "v4" } else { "v6" });
    ServicePortId { service: ObjectName::new("default", &name), port_name: "p".into(), protocol, family }
}

/// Three service ports, one of each protocol, share a cluster IP.
fn plan(number: u8, family: Family, random: &mut StdRng) -> ServicePortPlan {
    let host = 1 + number / 3;
    let (cluster, external, balancer): (IpAddr, IpAddr, IpAddr) = if family == Family::V4 {
        let address = |a, b, c| Ipv4Addr::new(a, b, c, host).into();
        (address(10, 96, 0), address(198, 18, 0), address(198, 18, 1))
    } else {
        let address = |group| Ipv6Addr::new(0xfd00, 0x96, group, 0, 0, 0, 0, host.into()).into();
        (address(0), address(1), address(2))
    };
    let node: [IpAddr; 2] =
        if family == Family::V4 { NODE4.map(IpAddr::from) } else { NODE6.map(IpAddr::from) };
    let node_port = 30_000 + u16::from(number);
    let mut frontends = vec![
        frontend(FrontendKind::ClusterIp, cluster, 80),
        frontend(FrontendKind::ExternalIp, external, 80),
        frontend(FrontendKind::LoadBalancer, balancer, 80),
        frontend(FrontendKind::NodePort, node[0], node_port),
        frontend(FrontendKind::NodePort, node[1], node_port),
    ];
    if host == 2 {
        // An external IP that is one of the node's own addresses.
        frontends.push(frontend(FrontendKind::ExternalIp, node[1], 2_000 + u16::from(number)));
    }
    frontends.sort();
    let endpoints = endpoints(family, random);
    let has_any = !endpoints.is_empty() || random.random_bool(0.3);
    ServicePortPlan {
        frontends,
        endpoints,
        affinity_seconds: random.random_bool(0.25).then_some(100),
        internal_local: random.random_bool(0.2),
        external_local: random.random_bool(0.3),
        has_any,
        source_ranges: source_ranges(family, random),
        exempt_sources: if random.random() { vec![endpoint_addresses(family)[0]] } else { Vec::new() },
    }
}

fn frontend(kind: FrontendKind, address: IpAddr, port: u16) -> PlannedFrontend {
    PlannedFrontend { kind, address, port, local: is_local(address) }
}

fn endpoints(family: Family, random: &mut StdRng) -> Vec<PlannedEndpoint> {
    let count = [0, 1, 1, 2, 4][random.random_range(0..5)];
    let addresses = endpoint_addresses(family).into_iter().choose_multiple(random, count);
    let mut endpoints: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let local = is_local(address) || is_local_pod(address);
            let lists = match random.random_range(0..8) {
                0 => EndpointList::None as u8,
                1 if local => EndpointList::Local as u8,
                _ if local => EndpointList::Cluster as u8 | EndpointList::Local as u8,
                _ => EndpointList::Cluster as u8,
            };
            // Few ports, so that Services share endpoints.
            let port = if random.random_bool(0.8) { 8080 } else { 80 };
            PlannedEndpoint { address, port, local, terminating: lists == 0, lists }
        })
        .collect();
    endpoints.sort_by_key(|endpoint| std::net::SocketAddr::new(endpoint.address, endpoint.port).to_string());
    endpoints
}

fn is_local_pod(address: IpAddr) -> bool {
    let network: IpNet =
        if address.is_ipv4() { "10.244.1.0/24".parse().unwrap() } else { "fd00:244:1::/64".parse().unwrap() };
    network.contains(&address)
}

fn source_ranges(family: Family, random: &mut StdRng) -> Vec<IpNet> {
    let all = if family == Family::V4 {
        ["203.0.113.0/29", "10.244.1.0/24", "192.0.2.10/32"]
    } else {
        ["2001:db8:99::/125", "fd00:244:1::/64", "2001:db8:1::10/128"]
    };
    let count = [0, 0, 1, 2][random.random_range(0..4)];
    let mut ranges: Vec<IpNet> =
        all.iter().map(|range| range.parse().unwrap()).choose_multiple(random, count);
    ranges.sort();
    ranges
}
