//! Frontends of every kind, and which addresses refuse the ports that they do not have.

use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
use proxy_common::FRONTEND_IS_LOCAL;

use super::*;

fn of(frontends: &[PlannedFrontend], endpoints: &[(u8, u8)]) -> ServicePortPlan {
    ServicePortPlan { frontends: frontends.to_vec(), ..plan(&[], endpoints) }
}

fn any_port(address: u8) -> FrontendKey {
    FrontendKey::any_port([10, 96, 0, address].into())
}

/// The addresses that refuse ports they do not have, by last byte.
fn refusing(programmer: &Programmer<Memory>) -> Vec<u8> {
    (0..=255).filter(|address| programmer.tables.frontends.contains_key(&any_port(*address))).collect()
}

#[test]
fn every_kind_is_programmed_with_both_of_its_lists() {
    let mut programmer = programmer(Capacities::default());
    let mut plan = of(
        &[
            frontend(ClusterIp, 1, 80),
            frontend(ExternalIp, 2, 80),
            frontend(LoadBalancer, 3, 80),
            frontend(NodePort, 4, 30080),
        ],
        &[(1, 1), (2, 3)],
    );
    plan.external_local = true;
    let report = programmer.apply(&[change("a", plan.clone())]);
    assert_eq!((report.frontends_written, report.backends_added), (5, 2));
    let entries = &programmer.tables.frontends;
    let cluster_ip = entries[&key(1, 80)];
    assert_eq!((cluster_ip.kind, cluster_ip.external_list), (ClusterIp, EndpointList::None));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![1, 2]));
    for (address, port, kind) in [(2, 80, ExternalIp), (3, 80, LoadBalancer), (4, 30080, NodePort)] {
        let entry = entries[&key(address, port)];
        assert_eq!((entry.kind, entry.service_port), (kind, cluster_ip.service_port));
        assert_eq!((entry.internal_list, entry.external_list), (EndpointList::Cluster, EndpointList::Local));
        assert_eq!((entry.internal, entry.external.len), (cluster_ip.internal, 1));
        let [inside, outside] = programmer.tables.both_endpoints(0, &entry);
        assert_eq!((inside.len(), outside.len()), (2, 1));
    }
    // Not one node port is left when the endpoints go, nor an entry of a list.
    plan.endpoints.clear();
    programmer.apply(&[change("a", plan)]);
    let entry = programmer.tables.frontends[&key(4, 30080)];
    assert_eq!((entry.external.len, entry.when_external_empty), (0, WhenEmpty::Drop));
    programmer.apply(&[gone("a")]);
    assert!(programmer.tables.frontends.is_empty() && programmer.tables.services.is_empty());
}

#[test]
fn an_entry_says_what_the_packet_path_has_to_know() {
    let mut programmer = programmer(Capacities::default());
    let frontends = [
        frontend(ClusterIp, 1, 80),
        frontend(ExternalIp, 2, 80),
        frontend(LoadBalancer, 3, 80),
        frontend(NodePort, 4, 80),
    ];
    let flags = |programmer: &Programmer<Memory>| {
        [1, 2, 3, 4].map(|address| programmer.tables.frontends[&key(address, 80)].flags)
    };
    let mut plan = of(&frontends, &[(1, 1)]);
    programmer.apply(&[change("a", plan.clone())]);
    assert_eq!(flags(&programmer), [0, 0, 0, FRONTEND_IS_LOCAL]);
    // The external address and the load balancer's are put on a link of the node.
    plan.frontends[1].local = true;
    plan.frontends[2].local = true;
    plan.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    let report = programmer.apply(&[change("a", plan.clone())]);
    assert_eq!(report.frontends_written, 2, "those that have changed");
    let own = FRONTEND_IS_LOCAL;
    assert_eq!(flags(&programmer), [0, own, own | FRONTEND_SOURCE_RANGES, own]);
    plan.frontends[2].local = false;
    programmer.apply(&[change("a", plan)]);
    assert_eq!(flags(&programmer), [0, own, FRONTEND_SOURCE_RANGES, own]);
}

#[test]
fn only_cluster_ips_refuse_ports_that_they_do_not_have() {
    let mut programmer = programmer(Capacities::default());
    let outside = [frontend(ExternalIp, 2, 80), frontend(LoadBalancer, 3, 80), frontend(NodePort, 4, 80)];
    programmer.apply(&[change("a", of(&outside, &[(1, 1)]))]);
    assert_eq!(refusing(&programmer), [] as [u8; 0]);
    // An address that is both: other Services' ports there are still reached.
    programmer.apply(&[change("b", of(&[frontend(ClusterIp, 3, 81)], &[(2, 1)]))]);
    assert_eq!(refusing(&programmer), [3]);
    assert_eq!(reach(&programmer, &key(3, 80)), Some(vec![1]));
    programmer.tables.log.clear();
    programmer.apply(&[gone("b")]);
    assert_eq!(refusing(&programmer), [] as [u8; 0]);
    let any = "remove 10.96.0.3 (other ports)";
    assert_eq!(programmer.tables.log[..2], ["remove 10.96.0.3:81/TCP".to_owned(), any.to_owned()]);
    assert!(!programmer.tables.log.contains(&"filter clear".to_owned()), "the address is still in use");
    check(&programmer, false);
}

#[test]
fn an_address_that_is_a_cluster_ip_no_more_stops_to_refuse() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", of(&[frontend(ClusterIp, 1, 80)], &[(1, 1)]))]);
    assert_eq!(refusing(&programmer), [1]);
    // Another service port has the same address and port, as an address of another kind: one overwrites the other.
    let external = change("b", of(&[frontend(ExternalIp, 1, 80)], &[(2, 1)]));
    programmer.apply(&[gone("a"), external.clone()]);
    assert_eq!((refusing(&programmer), reach(&programmer, &key(1, 80))), (Vec::new(), Some(vec![2])));
    check(&programmer, false);
    programmer.apply(&[gone("b"), change("a", of(&[frontend(ClusterIp, 1, 80)], &[(1, 1)]))]);
    assert_eq!((refusing(&programmer), reach(&programmer, &key(1, 80))), (vec![1], Some(vec![1])));
    // It moves from one service port to another in one step.
    let other_port = change("c", of(&[frontend(ClusterIp, 1, 81)], &[(3, 1)]));
    programmer.apply(&[gone("a"), other_port]);
    assert_eq!(refusing(&programmer), [1]);
    check(&programmer, false);
}

#[test]
fn a_restart_takes_back_refusals_at_addresses_that_are_no_cluster_ips() {
    let mut programmer = programmer(Capacities::default());
    let state = [
        (id("a"), Arc::new(of(&[frontend(ClusterIp, 1, 80), frontend(NodePort, 4, 80)], &[(1, 1)]))),
        (id("b"), Arc::new(of(&[frontend(LoadBalancer, 1, 443)], &[(2, 1)]))),
    ];
    programmer.reconcile(&state);
    // As an agent left it that was killed between two writes.
    let entry = programmer.tables.frontends[&any_port(1)];
    programmer.tables.frontends.insert(any_port(4), any_port(4).seal(entry));
    let mut programmer = restarted(programmer);
    let report = programmer.reconcile(&state);
    assert_eq!((report.frontends_written, report.frontends_removed), (0, 1));
    assert_eq!(refusing(&programmer), [1]);
    check(&programmer, false);
    let mut programmer = restarted(programmer);
    assert_eq!(programmer.reconcile(&state[1..]).frontends_removed, 3);
    assert_eq!(refusing(&programmer), [] as [u8; 0]);
    assert_eq!(reach(&programmer, &key(1, 443)), Some(vec![2]));
    check(&programmer, false);
}

#[test]
fn a_cluster_ip_that_the_kernel_refuses_leaves_no_refusal_of_other_ports() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", of(&[frontend(NodePort, 1, 80)], &[(1, 1)]))]);
    programmer.tables.failing.insert(key(1, 81));
    let report = programmer.apply(&[change("b", of(&[frontend(ClusterIp, 1, 81)], &[(2, 1)]))]);
    assert_eq!((report.refused.len(), refusing(&programmer)), (1, Vec::new()));
    check(&programmer, true);
    programmer.apply(&[gone("b")]);
    assert_eq!((refusing(&programmer), reach(&programmer, &key(1, 80))), (Vec::new(), Some(vec![1])));
}

#[test]
fn room_is_counted_as_it_is_used() {
    let capacities = Capacities { frontends: 4, ..Capacities::default() };
    let four: Vec<_> = (1..=4).map(|address| frontend(NodePort, address, 80)).collect();
    let mut programmer = programmer(capacities);
    assert!(programmer.apply(&[change("a", of(&four, &[]))]).refused.is_empty());
    programmer.apply(&[gone("a")]);
    let cluster_ips: Vec<_> = (1..=2).map(|address| frontend(ClusterIp, address, 80)).collect();
    assert!(programmer.apply(&[change("a", of(&cluster_ips, &[]))]).refused.is_empty());
    let report = programmer.apply(&[change("b", of(&[frontend(NodePort, 3, 80)], &[]))]);
    assert_eq!((report.refused.len(), programmer.tables.frontends.len()), (1, 4));
}

#[test]
fn links_of_pods_need_programs_while_something_is_for_packets_only() {
    let mut programmer = programmer(Capacities::default());
    let sctp = ServicePortId { protocol: Protocol::Sctp, ..id("sctp") };
    let of_sctp = |plan| PlanChange { id: sctp.clone(), plan };
    let cluster_ip = of(&[frontend(ClusterIp, 1, 80)], &[(1, 1)]);
    let mut balanced = of(&[frontend(ClusterIp, 2, 80), frontend(LoadBalancer, 3, 80)], &[(1, 1)]);
    programmer.apply(&[change("a", cluster_ip.clone()), change("lb", balanced.clone())]);
    assert!(!programmer.needs_workload_links());
    programmer.apply(&[of_sctp(Some(Arc::new(cluster_ip.clone())))]);
    assert!(programmer.needs_workload_links());
    // Source ranges count where there is an address that they apply to.
    balanced.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    let limited = Arc::new(balanced.clone());
    balanced.frontends.pop();
    programmer.apply(&[of_sctp(None), change("lb", balanced)]);
    assert!(!programmer.needs_workload_links());
    programmer.apply(&[PlanChange { id: id("lb"), plan: Some(Arc::clone(&limited)) }]);
    assert!(programmer.needs_workload_links());
    let mut programmer = restarted(programmer);
    assert!(programmer.needs_workload_links(), "it is in force before the first step");
    programmer.reconcile(&[(id("lb"), limited)]);
    assert!(programmer.needs_workload_links());
    programmer.reconcile(&[(id("a"), Arc::new(cluster_ip))]);
    assert!(!programmer.needs_workload_links());
}
