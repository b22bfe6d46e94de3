//! What holds after any sequence of changes.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    plan::claims::Place,
    state::{AddressType, Endpoint, EndpointSlice, Hints, Node, Service, ServicePort, SlicePort},
};

/// Few names and addresses, so that they meet.
fn name() -> impl Strategy<Value = ObjectName> {
    (select(&["a", "b", "c", "d"][..])).prop_map(|name| ObjectName::new("ns", name))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::Tcp, Protocol::Udp][..])
}

fn port_name() -> impl Strategy<Value = Arc<str>> {
    select(&["", "http"][..]).prop_map(Arc::from)
}

/// Addresses that a Service, an endpoint and the node may share.
fn address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 1..4_u8).prop_map(|(v4, last)| {
        if v4 {
            IpAddr::from([10, 0, 0, last])
        } else {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()])
        }
    })
}

fn source_range() -> impl Strategy<Value = ipnet::IpNet> {
    let ranges = ["10.0.0.0/31", "10.0.0.2/32", "fd00::/16"];
    select(ranges.map(|range| range.parse().expect("a network")).to_vec())
}

prop_compose! {
    fn service_port()(
        name in port_name(), protocol in protocol(), port in 80..83_u16, node_port in option::of(80..83_u16),
    ) -> ServicePort {
        ServicePort { name, protocol, port, node_port }
    }
}

prop_compose! {
    fn service()(
        name in name(), created in option::of(0..3_i64), cluster_ips in vec(address(), 0..3),
        external_ips in vec(address(), 0..3), load_balancer_ips in vec(address(), 0..2),
        source_ranges in vec(source_range(), 0..3), ports in vec(service_port(), 0..3), internal_local: bool, external_local: bool,
        health_check_port in option::of(31_000..31_002_u16),
        affinity_seconds in option::of(1..3_u32), problem in option::of(0..2_u8),
    ) -> Service {
        let mut cluster_ips = cluster_ips;
        cluster_ips.sort();
        cluster_ips.dedup_by_key(|address| family_of(*address));
        Service {
            name,
            uid: None,
            created: created.map(|second| jiff::Timestamp::from_second(second).expect("a time")),
            cluster_ips, external_ips, load_balancer_ips, source_ranges, ports,
            internal_local, external_local, health_check_port, affinity_seconds,
            problems: problem.into_iter().map(|number| format!("problem {number}")).collect(),
        }
    }
}

prop_compose! {
    fn endpoint()(
        v4_last in 1..5_u8, ready: bool, serving: bool, terminating: bool, local: bool,
        hints in option::of((vec(select(&["x", "y"][..]), 0..2), any::<bool>(), any::<bool>())),
    ) -> Endpoint {
        let hints = hints.map(|(zones, has_nodes, this_node)| {
            let zones = zones.into_iter().map(Arc::from).collect();
            Arc::new(Hints { zones, has_nodes, this_node: has_nodes && this_node })
        });
        Endpoint { address: IpAddr::from([10, 244, 0, v4_last]), ready, serving, terminating, local, hints }
    }
}

prop_compose! {
    fn slice()(
        name in name(), service in option::of(name()), v4 in any::<bool>(),
        ports in vec((port_name(), protocol(), 8080..8082_u16), 0..3), endpoints in vec(endpoint(), 0..6),
    ) -> EndpointSlice {
        let to_v6 = |address| match address {
            IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_compatible()),
            IpAddr::V6(_) => address,
        };
        let in_family = |endpoint: Endpoint| match v4 {
            true => endpoint,
            false => Endpoint { address: to_v6(endpoint.address), ..endpoint },
        };
        EndpointSlice {
            name,
            service: service.map(|service| service.name),
            address_type: if v4 { AddressType::V4 } else { AddressType::V6 },
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| SlicePort { name, protocol, port })
                .collect(),
            endpoints: endpoints.into_iter().map(in_family).collect(),
            triggered: None,
            problems: Vec::new(),
        }
    }
}

prop_compose! {
    fn node()(zone in option::of(select(&["x", "y"][..])), addresses in vec(address(), 0..3)) -> Node {
        Node { zone: zone.map(Arc::from), addresses, ..Node::default() }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Service(Service),
    ServiceGone(ObjectName),
    Slice(EndpointSlice),
    SliceGone(ObjectName),
    Node(Node),
    LocalAddresses(Vec<IpAddr>),
    Services(Vec<Service>),
    Slices(Vec<EndpointSlice>),
}

impl Step {
    fn change(self) -> Change {
        match self {
            Self::Service(service) => Change::Service(service),
            Self::ServiceGone(name) => Change::ServiceGone(name),
            Self::Slice(slice) => Change::Slice(slice),
            Self::SliceGone(name) => Change::SliceGone(name),
            Self::Node(node) => Change::Node(Some(node)),
            Self::LocalAddresses(addresses) => Change::LocalAddresses(addresses),
            Self::Services(list) => Change::Services(list),
            Self::Slices(list) => Change::Slices(list),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => service().prop_map(Step::Service),
        3 => name().prop_map(Step::ServiceGone),
        8 => slice().prop_map(Step::Slice),
        3 => name().prop_map(Step::SliceGone),
        2 => node().prop_map(Step::Node),
        2 => vec(address(), 0..3).prop_map(Step::LocalAddresses),
        1 => vec(service(), 0..4).prop_map(Step::Services),
        1 => vec(slice(), 0..4).prop_map(Step::Slices),
    ]
}

fn node_port_addresses() -> impl Strategy<Value = NodePortAddresses> {
    let one = "10.0.0.0/30".parse().expect("a network");
    select(vec![NodePortAddresses::All, NodePortAddresses::Primary, NodePortAddresses::Cidrs(vec![one])])
}

type Plans = BTreeMap<ServicePortId, Arc<ServicePortPlan>>;

fn plans(planner: &Planner) -> Plans {
    planner.plans().map(|(id, plan)| (id.clone(), Arc::clone(plan))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Step by step, or several steps at once, the plans are those that planning from scratch makes, and the
    /// changes told add up to them.
    #[test]
    fn incremental_equals_from_scratch(
        addresses in node_port_addresses(), steps in vec((step(), any::<bool>()), 1..30),
    ) {
        let mut agent = Agent::new(addresses.clone());
        let (mut told, mut told_checks) = (Plans::new(), BTreeMap::new());
        let mut dirty = Dirty::default();
        for (step, more_to_come) in steps {
            dirty.merge(agent.store.apply(step.change()));
            if more_to_come {
                continue;
            }
            let outcome = agent.planner.plan(&agent.store, &std::mem::take(&mut dirty));
            for PlanChange { id, plan } in outcome.changes {
                let before = told.remove(&id);
                prop_assert_ne!(&before, &plan, "no change of {}", id);
                told.extend(plan.map(|plan| (id, plan)));
            }
            for HealthCheckChange { id, check } in outcome.health_checks {
                let before = told_checks.remove(&id);
                prop_assert_ne!(before, check, "no change of {:?}", id);
                told_checks.extend(check.map(|check| (id, check)));
            }
            let mut scratch = Planner::new(PlannerConfig {
                node_port_addresses: addresses.clone(),
                ..PlannerConfig::default()
            });
            let all = scratch.plan(&agent.store, &Dirty::everything()).health_checks;
            let all = all.into_iter().map(|change| (change.id, change.check.expect("one that is there")));
            prop_assert_eq!(&told_checks, &all.collect::<BTreeMap<_, _>>());
            prop_assert_eq!(agent.planner.health_check_addresses(), scratch.health_check_addresses());
            prop_assert_eq!(&told, &plans(&scratch));
            prop_assert_eq!(&told, &plans(&agent.planner));
        }
    }

    /// Whatever the Services claim: an address, port and protocol belongs to one service port at most, and
    /// to one if any claims it; lists hold nothing but endpoints that are there.
    #[test]
    fn what_every_plan_keeps(addresses in node_port_addresses(), steps in vec(step(), 1..30)) {
        let mut agent = Agent::new(addresses);
        for step in steps {
            agent.apply(step.change());
        }
        let mut owners: BTreeMap<(IpAddr, u16, Protocol), ServicePortId> = BTreeMap::new();
        for (id, plan) in agent.planner.plans() {
            for frontend in &plan.frontends {
                let place = (frontend.address, frontend.port, id.protocol);
                prop_assert_eq!(family_of(frontend.address), id.family);
                if let Some(other) = owners.insert(place, id.clone()) {
                    prop_assert!(false, "{:?} belongs to {} and {}", place, other, id);
                }
            }
            let known: HashSet<(IpAddr, u16)> = agent
                .store
                .slices_of(&id.service)
                .flat_map(|slice| slice.endpoints.iter().flat_map(|endpoint| {
                    slice.ports.iter().map(|port| (endpoint.address, port.port))
                }))
                .collect();
            for endpoint in &plan.endpoints {
                prop_assert!(known.contains(&(endpoint.address, endpoint.port)));
                prop_assert_eq!(family_of(endpoint.address), id.family);
                // What finishes, and UDP endpoints that are serving: their flows go on.
                prop_assert!(endpoint.lists != 0 || endpoint.terminating || id.protocol == Protocol::Udp);
            }
            let texts: Vec<String> = plan
                .endpoints
                .iter()
                .map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port).to_string())
                .collect();
            prop_assert!(texts.is_sorted_by(|a, b| a < b), "{:?}", texts);
            prop_assert!(plan.frontends.is_sorted_by(|a, b| a < b));
            prop_assert!(plan.has_any || plan.endpoints.iter().all(|endpoint| endpoint.lists == 0));
        }
        for planned in agent.planner.services.values().flat_map(|planned| &planned.ports) {
            for (Place { address, port, protocol }, _) in planned.wanted.claims(&planned.id) {
                prop_assert!(owners.contains_key(&(address, port, protocol)), "nobody has what {} claims", planned.id);
            }
        }
    }

    /// A slice that moved on or went leaves no endpoint of its own where it was.
    #[test]
    fn moved_slices_leave_nothing_behind(slice in slice(), service in service(), to in option::of(name())) {
        let mut agent = agent();
        let owner = service.name.clone();
        agent.apply(Change::Service(service));
        let here = EndpointSlice { service: Some(Arc::clone(&owner.name)), ..slice.clone() };
        agent.apply(Change::Slice(here));
        let elsewhere = to.map(|to| to.name).filter(|to| *to != owner.name);
        agent.apply(Change::Slice(EndpointSlice { service: elsewhere, ..slice }));
        for (id, plan) in agent.planner.plans() {
            prop_assert_eq!(&plan.endpoints, &[], "{}", id);
            prop_assert!(!plan.has_any);
        }
    }
}
