//! A large cluster, and that nothing of it is lost. How fast it goes is the benchmark's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use serde_json::Value;
use xtask::lab::{
    Via, available,
    objects::{EndpointBuilder, endpoint, service, slice},
};

use crate::{
    helpers::{endpoints, frontends, until_gone},
    world::{From, World, answers, until_answered_by},
};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 5;
/// Each of so many Services has pods of the lab as its endpoints.
const SAMPLE: u32 = 500;

fn address(first: Ipv4Addr, index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + index)
}

fn cluster_ip(index: u32) -> Ipv4Addr {
    address(Ipv4Addr::new(10, 100, 0, 1), index)
}

/// An endpoint that nobody will talk to.
fn filler(index: u32, of: u32) -> Ipv4Addr {
    address(Ipv4Addr::new(10, 128, 0, 1), index * ENDPOINTS + of)
}

fn service_object(index: u32) -> Value {
    service("scale", &format!("web-{index}"))
        .cluster_ip(cluster_ip(index))
        .port("http", "TCP", 80, 8080)
        .build()
}

fn slice_object(index: u32, endpoints: impl IntoIterator<Item = EndpointBuilder>) -> Value {
    let name = format!("web-{index}");
    slice("scale", &format!("{name}-abcde"), &name).port("http", "TCP", 8080).endpoints(endpoints).build()
}

#[test]
fn ten_thousand_services_of_five_endpoints() {
    if !available() {
        return;
    }
    // The pods of the lab have the addresses that their place in this list gives them.
    let pods = ["client", "web-1", "web-2", "web-3", "web-4", "web-5"];
    let real = |of: u32| Ipv4Addr::new(10, 244, 1, u8::try_from(of + 2).unwrap());
    let address_of =
        |index: u32, of: u32| if index.is_multiple_of(SAMPLE) { real(of) } else { filler(index, of) };
    let objects: Vec<Value> = (0..SERVICES)
        .flat_map(|index| {
            let endpoints = (0..ENDPOINTS).map(|of| endpoint(address_of(index, of)).on("node-a"));
            [service_object(index), slice_object(index, endpoints)]
        })
        .collect();
    let world = World::with("scale", From::Api, &[("node-a", &pods)], &objects, |spec| spec);
    drop(objects);
    let client = world.pod("client");
    let _servers: Vec<_> = pods[1..].iter().map(|name| world.pod(name).serve(8080).unwrap()).collect();
    for (of, name) in (0..).zip(&pods[1..]) {
        assert_eq!(world.pod(name).addresses().v4, real(of), "{name}");
    }

    let programmed: BTreeMap<IpAddr, BTreeSet<String>> = frontends(&world, "node-a")
        .iter()
        .map(|frontend| {
            assert_eq!((&frontend["port"], &frontend["protocol"]), (&80.into(), &"TCP".into()), "{frontend}");
            (serde_json::from_value(frontend["address"].clone()).unwrap(), endpoints(frontend))
        })
        .collect();
    assert_eq!(programmed.len(), SERVICES as usize);
    for index in 0..SERVICES {
        let wanted: BTreeSet<String> =
            (0..ENDPOINTS).map(|of| format!("{}:8080", address_of(index, of))).collect();
        assert_eq!(programmed[&cluster_ip(index).into()], wanted, "Service {index}");
    }
    for index in (0..SERVICES).step_by(SAMPLE as usize) {
        let seen = answers(&client, Via::Tcp, (cluster_ip(index), 80).into(), 60);
        assert_eq!(seen.len(), 5, "Service {index}: {seen:?}");
    }

    // One of them changes, one goes, one comes.
    let changed = 3 * SAMPLE;
    world.apply(&[slice_object(changed, [endpoint(real(3)).on("node-a")])]);
    until_answered_by(&client, Via::Tcp, (cluster_ip(changed), 80).into(), "web-4");
    let seen = answers(&client, Via::Tcp, (cluster_ip(changed), 80).into(), 30);
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["web-4"]);
    world.delete(&service_object(4 * SAMPLE));
    until_gone(&world, "node-a", cluster_ip(4 * SAMPLE));
    world.apply(&[service_object(SERVICES), slice_object(SERVICES, [endpoint(real(4))])]);
    until_answered_by(&client, Via::Tcp, (cluster_ip(SERVICES), 80).into(), "web-5");
    assert_eq!(frontends(&world, "node-a").len(), SERVICES as usize);

    let peak = world.agent("node-a").rss_peak().unwrap();
    assert!(peak < 64 << 20, "{} MiB resident at the most", peak >> 20);
}
