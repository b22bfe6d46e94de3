//! Which clients load-balancer addresses let in.

use FrontendKind::{ClusterIp, LoadBalancer};

use super::*;

/// A Service with a cluster IP and, at 10.96.0.3, a load-balancer address for these ranges.
fn limited(ranges: &[u8]) -> ServicePortPlan {
    ServicePortPlan {
        frontends: vec![frontend(ClusterIp, 1, 80), frontend(LoadBalancer, 3, 80)],
        source_ranges: ranges.iter().copied().map(range).collect(),
        ..plan(&[], &[(1, 1)])
    }
}

fn allowed(programmer: &Programmer<Memory>) -> Option<Vec<IpNet>> {
    let allowed = programmer.tables.allowed(&programmer.tables.frontends[&key(3, 80)]);
    allowed.map(|allowed| allowed.into_iter().collect())
}

/// What was written and deleted, names, backends and slots apart.
fn log(programmer: &mut Programmer<Memory>) -> Vec<String> {
    std::mem::take(&mut programmer.tables.log)
}

#[test]
fn ranges_come_before_the_frontend_that_asks_for_them_and_go_after_it() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", limited(&[]))]);
    log(&mut programmer);
    programmer.apply(&[change("a", limited(&[0, 1]))]);
    assert_eq!(log(&mut programmer), ["allow 192.0.0.0/24", "allow 192.0.1.0/24", "put 10.96.0.3:80/TCP"]);
    // Other ranges alone are no other frontend.
    programmer.apply(&[change("a", limited(&[1, 2]))]);
    assert_eq!(log(&mut programmer), ["allow 192.0.2.0/24", "deny 192.0.0.0/24"]);
    assert_eq!(allowed(&programmer), Some(vec![range(1), range(2)]));
    programmer.apply(&[change("a", limited(&[1, 2]))]);
    assert_eq!(log(&mut programmer), [] as [&str; 0]);
    assert_eq!(programmer.tables.grace_periods, 0, "nobody waits for that");
    // Whoever still holds the frontend that asks must find its ranges.
    programmer.apply(&[change("a", limited(&[]))]);
    assert_eq!(log(&mut programmer), ["put 10.96.0.3:80/TCP", "deny 192.0.1.0/24", "deny 192.0.2.0/24"]);
    assert_eq!((programmer.tables.grace_periods, allowed(&programmer)), (1, None));
}

#[test]
fn ranges_go_with_their_service_port() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", limited(&[0])), change("b", plan(&[(2, 80)], &[]))]);
    log(&mut programmer);
    programmer.apply(&[gone("a")]);
    assert!(log(&mut programmer).contains(&"deny 192.0.0.0/24".to_owned()));
    assert_eq!((programmer.tables.ranges.len(), programmer.tables.grace_periods), (0, 0));
    // And with the address that they are about.
    programmer.apply(&[change("a", limited(&[0]))]);
    let mut without = limited(&[0]);
    without.frontends.pop();
    programmer.apply(&[change("a", without)]);
    assert!(programmer.tables.ranges.is_empty() && !programmer.needs_workload_links());
    check(&programmer, false);
}

#[test]
fn the_services_own_addresses_are_let_in_with_the_ranges() {
    let mut programmer = programmer(Capacities::default());
    let exempt = ServicePortPlan { exempt_sources: vec![[10, 96, 0, 3].into()], ..limited(&[0]) };
    programmer.apply(&[change("a", exempt)]);
    assert_eq!(allowed(&programmer), Some(vec!["10.96.0.3/32".parse().unwrap(), range(0)]));
    // Without ranges there is nothing to be exempt from.
    let open = ServicePortPlan { exempt_sources: vec![[10, 96, 0, 3].into()], ..limited(&[]) };
    programmer.apply(&[change("a", open)]);
    assert_eq!(programmer.tables.ranges.len(), 0);
}

#[test]
fn another_id_takes_its_ranges_along() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", limited(&[0, 1]))]);
    let before = programmer.tables.frontends[&key(3, 80)].service_port;
    let sticky = ServicePortPlan { affinity_seconds: Some(30), ..limited(&[1, 2]) };
    programmer.apply(&[change("a", sticky)]);
    let after = programmer.tables.frontends[&key(3, 80)].service_port;
    assert_ne!(before, after);
    assert_eq!(programmer.tables.ranges.iter().filter(|range| range.service_port == before).count(), 0);
    assert_eq!(allowed(&programmer), Some(vec![range(1), range(2)]));
    assert_eq!(programmer.tables.grace_periods, 1);
}

#[test]
fn who_finds_no_room_for_its_ranges_is_refused_alone() {
    let mut programmer = programmer(Capacities { source_ranges: 3, ..Capacities::default() });
    let other = ServicePortPlan { frontends: vec![frontend(LoadBalancer, 4, 80)], ..limited(&[0, 1]) };
    let report = programmer.apply(&[change("a", limited(&[0, 1])), change("b", other.clone())]);
    assert_eq!(report.refused.len(), 1);
    assert_eq!(
        report.refused[0].reason.to_string(),
        "Service default/b:http: map SOURCE_RANGES4 is full (3 entries): raise --max-source-ranges"
    );
    assert!(!programmer.tables.frontends.contains_key(&key(4, 80)), "nobody is let in rather than everybody");
    check(&programmer, true);
    // A change that does not fit leaves what was there.
    let report = programmer.apply(&[change("a", limited(&[2, 3]))]);
    assert_eq!((report.refused.len(), allowed(&programmer)), (1, Some(vec![range(0), range(1)])));
    let report = programmer.apply(&[change("a", limited(&[0]))]);
    assert_eq!((report.refused.len(), report.waiting), (0, 0));
    assert!(programmer.tables.frontends.contains_key(&key(4, 80)), "there is room now");
    assert_eq!(programmer.tables.ranges.len(), 3);
}

#[test]
fn a_range_that_the_kernel_refuses_keeps_the_old_frontend() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", limited(&[0]))]);
    log(&mut programmer);
    programmer.tables.failing_ranges.insert(range(2));
    let other = ServicePortPlan { endpoints: plan(&[], &[(2, 1)]).endpoints, ..limited(&[1, 2]) };
    let report = programmer.apply(&[change("a", other.clone()), change("b", plan(&[(2, 80)], &[(3, 1)]))]);
    assert_eq!((report.refused.len(), report.waiting), (1, 1));
    let message = report.refused[0].reason.to_string();
    assert!(message.contains("writing source range 192.0.2.0/24"), "{message}");
    assert_eq!(reach(&programmer, &key(3, 80)), Some(vec![1]), "as before");
    assert_eq!(reach(&programmer, &key(2, 80)), Some(vec![3]), "nobody else waits");
    assert!(allowed(&programmer).unwrap().contains(&range(0)));
    check(&programmer, true);
    let report = programmer.apply(&[]);
    assert_eq!((report.refused.len(), report.waiting), (0, 0));
    assert_eq!(reach(&programmer, &key(3, 80)), Some(vec![2]));
    assert_eq!(allowed(&programmer), Some(vec![range(1), range(2)]));
    check(&programmer, false);
}

#[test]
fn a_range_that_the_kernel_does_not_delete_is_deleted_later() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", limited(&[0, 1]))]);
    programmer.tables.failing_ranges.insert(range(0));
    let report = programmer.apply(&[change("a", limited(&[1]))]);
    assert_eq!((report.refused.len(), report.waiting), (1, 1));
    assert_eq!(allowed(&programmer), Some(vec![range(0), range(1)]));
    let report = programmer.apply(&[]);
    assert_eq!((report.refused.len(), report.waiting), (0, 0));
    assert_eq!(allowed(&programmer), Some(vec![range(1)]));
    // Nobody gets the id of a service port that is gone while its ranges are there.
    programmer.tables.failing_ranges.insert(range(1));
    let report = programmer.apply(&[gone("a")]);
    assert_eq!((report.problems.len(), programmer.unfinished.len()), (1, 1));
    check(&programmer, false);
    programmer.apply(&[]);
    assert!(programmer.unfinished.is_empty() && programmer.tables.ranges.is_empty());
    check(&programmer, false);
}

#[test]
fn a_restart_keeps_the_ranges_that_are_wanted_and_no_others() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", limited(&[0, 1])), change("b", plan(&[(2, 80)], &[]))]);
    // Of a service port that is gone, and of one that has none.
    let strays = [
        SourceRange { service_port: 99, clients: range(0) },
        SourceRange { service_port: 2, clients: range(1) },
    ];
    programmer.tables.ranges.extend(strays);
    programmer
        .tables
        .ranges
        .insert(SourceRange { service_port: 1, clients: "2001:db8::/32".parse().unwrap() });
    let mut programmer = restarted(programmer);
    log(&mut programmer);
    let state = [(id("a"), Arc::new(limited(&[1, 2]))), (id("b"), Arc::new(plan(&[(2, 80)], &[])))];
    let report = programmer.reconcile(&state);
    assert_eq!((report.frontends_written, report.frontends_removed), (0, 0));
    assert_eq!(allowed(&programmer), Some(vec![range(1), range(2)]));
    assert_eq!(programmer.tables.ranges.len(), 2, "{:?}", programmer.tables.ranges);
    let written: Vec<_> = log(&mut programmer).into_iter().filter(|line| line.starts_with("allow")).collect();
    assert_eq!(written, ["allow 192.0.2.0/24"]);
    check(&programmer, false);
}
