//! Frontends of every kind and their source ranges, in the kernel's maps.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use proxy_agent::{
    datapath::{Datapath, FrontendView, Snapshot},
    plan::{PlanChange, PlannedFrontend, ServicePortPlan},
};
use proxy_common::FrontendKind;

use crate::world::{World, id, plan};

/// A Service with a load-balancer address for these ranges.
fn limited(cluster_ip: &str, vip: &str, ranges: impl IntoIterator<Item = IpNet>) -> Arc<ServicePortPlan> {
    let mut plan = plan(cluster_ip, &[]);
    let (kind, address) = (FrontendKind::LoadBalancer, vip.parse().unwrap());
    plan.frontends.push(PlannedFrontend { kind, address, port: 80, local: false });
    plan.source_ranges = ranges.into_iter().collect();
    Arc::new(plan)
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// More than go in one system call.
fn many() -> impl Iterator<Item = IpNet> {
    (0..5000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        IpNet::new([10, high, low, 0].into(), 24).unwrap()
    })
}

fn at<'a>(snapshot: &'a Snapshot, address: &str) -> &'a FrontendView {
    let address: IpAddr = address.parse().unwrap();
    snapshot.frontends.iter().find(|frontend| frontend.address == address).unwrap()
}

#[test]
fn every_kind_is_in_the_maps_and_shown() {
    let Some(world) = World::new() else { return };
    let mut both = plan("10.96.0.1", &["10.244.0.1", "10.244.0.2"]);
    both.endpoints[1].lists = 3;
    both.external_local = true;
    for (kind, address, port) in [
        (FrontendKind::ExternalIp, [192, 0, 2, 1], 80),
        (FrontendKind::LoadBalancer, [203, 0, 113, 1], 80),
        (FrontendKind::NodePort, [172, 18, 0, 2], 30080),
    ] {
        let local = kind == FrontendKind::NodePort;
        both.frontends.push(PlannedFrontend { kind, address: address.into(), port, local });
    }
    let report = world.open().reconcile(&[(id("a"), Arc::new(both))]).unwrap();
    assert_eq!((report.frontends_written, report.refused.len()), (5, 0));
    let snapshot = world.inspect();
    let shown: Vec<_> = snapshot
        .frontends
        .iter()
        .map(|frontend| {
            let external = frontend.external.as_ref().map(Vec::len);
            (frontend.kind, frontend.internal.len(), external, frontend.when_empty.external)
        })
        .collect();
    let outside = |kind| (kind, 2, Some(1), Some("drop"));
    let expected =
        [("ClusterIP", 2, None, None), outside("NodePort"), outside("ExternalIP"), outside("LoadBalancer")];
    assert_eq!(shown, expected);
}

#[test]
fn source_ranges_are_kept_changed_and_taken_back() {
    let Some(world) = World::new() else { return };
    let v6 = nets(&["2001:db8::/32", "fd00::1/128"]);
    let state = |ranges: Vec<IpNet>| {
        [
            (id("a"), limited("10.96.0.1", "203.0.113.1", ranges)),
            (id("b"), limited("10.96.0.2", "203.0.113.2", nets(&["10.0.0.0/8"]))),
            (id("v6"), limited("fd00:96::1", "2001:db8::1", v6.clone())),
        ]
    };
    let mut datapath = world.open();
    let report = datapath.reconcile(&state(many().collect())).unwrap();
    assert!(report.refused.is_empty() && report.problems.is_empty(), "{report:?}");
    let snapshot = world.inspect();
    assert_eq!(at(&snapshot, "203.0.113.1").source_ranges.len(), 5000);
    assert_eq!(at(&snapshot, "203.0.113.2").source_ranges, ["10.0.0.0/8"]);
    assert_eq!(at(&snapshot, "2001:db8::1").source_ranges, ["2001:db8::/32", "fd00::1/128"]);
    assert_eq!(at(&snapshot, "10.96.0.1").source_ranges, [] as [&str; 0]);

    // A new agent finds them, and takes back those that are not wanted any more.
    drop(datapath);
    let mut datapath = world.open();
    let few = nets(&["10.0.7.0/24", "192.0.2.0/24"]);
    let report = datapath.reconcile(&state(few)).unwrap();
    assert_eq!((report.frontends_written, report.refused.len(), report.problems.len()), (0, 0, 0));
    assert_eq!(at(&world.inspect(), "203.0.113.1").source_ranges, ["10.0.7.0/24", "192.0.2.0/24"]);
    let open = limited("10.96.0.1", "203.0.113.1", []);
    datapath.apply(&[PlanChange { id: id("a"), plan: Some(open) }, PlanChange { id: id("b"), plan: None }]);
    let snapshot = world.inspect();
    assert_eq!(at(&snapshot, "203.0.113.1").source_ranges, [] as [&str; 0]);
    assert_eq!(at(&snapshot, "2001:db8::1").source_ranges.len(), 2);
    // What is not shown is not there either: everything fits again.
    let report = datapath
        .apply(&[PlanChange { id: id("b"), plan: Some(limited("10.96.0.2", "203.0.113.2", many())) }]);
    assert!(report.refused.is_empty() && report.problems.is_empty(), "{report:?}");
}

#[test]
fn source_ranges_that_do_not_fit_are_refused_alone() {
    let Some(world) = World::new() else { return };
    let mut options = world.options();
    options.capacities.source_ranges = 2;
    let mut datapath = Datapath::open(&options).unwrap();
    let report = datapath
        .reconcile(&[
            (id("a"), limited("10.96.0.1", "203.0.113.1", nets(&["10.0.0.0/8", "192.0.2.0/24"]))),
            (id("b"), limited("10.96.0.2", "203.0.113.2", nets(&["10.0.0.0/8"]))),
            (id("v6"), limited("fd00:96::1", "2001:db8::1", nets(&["fd00::/8"]))),
        ])
        .unwrap();
    assert_eq!((report.refused.len(), report.waiting), (1, 1));
    let message = report.refused[0].reason.to_string();
    assert_eq!(
        message,
        "Service default/b:http: map SOURCE_RANGES4 is full (2 entries): raise --max-source-ranges"
    );
    let change =
        PlanChange { id: id("a"), plan: Some(limited("10.96.0.1", "203.0.113.1", nets(&["10.0.0.0/8"]))) };
    let report = datapath.apply(&[change]);
    assert_eq!((report.refused.len(), report.waiting), (0, 0));
    assert_eq!(at(&world.inspect(), "203.0.113.2").source_ranges, ["10.0.0.0/8"]);
}
