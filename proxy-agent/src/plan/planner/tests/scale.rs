use std::time::{Duration, Instant};

use super::*;

/// Services, each with a slice of as many endpoints.
fn big(services: u8, of: u8, endpoints: u8) -> Agent {
    let mut agent = agent();
    let mut all = (Vec::new(), Vec::new());
    for (high, low) in (0..services).flat_map(|high| (0..of).map(move |low| (high, low))) {
        let name = format!("web-{high}-{low}");
        let service = json!({
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"clusterIP": format!("10.96.{high}.{low}"), "ports": HTTP()},
        });
        let slice = json!({
            "metadata": {
                "name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": name}
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": (1..=endpoints)
                .map(|n| json!({"addresses": [format!("10.{high}.{low}.{n}")]}))
                .collect::<Vec<_>>(),
        });
        all.0.push(agent.ingest.service(&serde_json::from_value(service).expect("a Service")));
        all.1.push(agent.ingest.slice(&serde_json::from_value(slice).expect("an EndpointSlice")));
    }
    agent.store.apply(Change::Services(all.0));
    agent.store.apply(Change::Slices(all.1));
    agent
}

fn planned(agent: &mut Agent, dirty: &Dirty) -> (Outcome, Duration) {
    let start = Instant::now();
    let outcome = agent.planner.plan(&agent.store, dirty);
    (outcome, start.elapsed())
}

/// 5,000 Services of 50 endpoints are planned well under a second when optimised; the bound here leaves room
/// for a build that is not, on a busy machine.
#[test]
fn five_thousand_services_of_fifty_endpoints() {
    let mut agent = big(50, 100, 50);
    let (outcome, took) = planned(&mut agent, &Dirty::everything());
    println!("planned {} service ports in {took:?}", outcome.changes.len());
    assert_eq!(outcome.changes.len(), 5_000);
    assert!(outcome.changes.iter().all(|change| change.plan.as_ref().expect("a plan").endpoints.len() == 50));
    assert!(took < Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 }), "{took:?}");
}

#[test]
fn one_slice_costs_only_its_service() {
    let mut agent = big(50, 100, 5);
    let (_, all) = planned(&mut agent, &Dirty::everything());
    // The best of a few, so that somebody else's work is not counted.
    let one = (0..5).map(|n| {
        let start = Instant::now();
        let endpoints = json!({"endpoints": [{"addresses": [format!("10.200.0.{n}")]}]});
        assert_eq!(agent.slice("web-7-7", "web-7-7", endpoints).changes.len(), 1);
        start.elapsed()
    });
    let one = one.min().expect("some");
    println!("everything {all:?}, one slice {one:?}");
    assert!(one * 50 < all, "everything {all:?}, one slice {one:?}");
}
