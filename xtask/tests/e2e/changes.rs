//! Changes while requests are under way: none of them fails, and what was taken away is left alone.

use std::collections::BTreeSet;

use xtask::lab::{
    Pod, Via, ask, available,
    objects::{service, slice},
};

use crate::{
    helpers::{Traffic, frontends, until_gone, until_programmed, web},
    world::{SOURCES, World, answers, cluster_ips, until_answered_by},
};

const PODS: [&str; 7] = ["client", "web-1", "web-2", "web-3", "web-4", "web-5", "web-6"];

/// Some of six pods: never none, and never the same as the round before.
fn some(pods: &[Pod], round: usize) -> Vec<&Pod> {
    let mask = 1 + round * 37 % 63;
    pods.iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1).map(|(_, pod)| pod).collect()
}

#[test]
fn a_hundred_endpoint_changes_fail_no_request() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("changes", from, &[("node-a", &PODS)]);
        let pods: Vec<Pod> = PODS[1..].iter().map(|name| world.pod(name)).collect();
        // A pod that is taken out of a Service goes on for a while, and finishes what it has.
        let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(8080).unwrap()).collect();
        let ips = cluster_ips();
        let client = world.pod("client");
        world.apply(&web("web", ips, &pods.iter().collect::<Vec<_>>()));
        let [to4, to6] = [(ips.0, 80).into(), (ips.1, 80).into()];
        until_answered_by(&client, Via::Udp, to6, "web-6");
        until_answered_by(&client, Via::Tcp, to4, "web-1");

        let traffic = Traffic::start(&client, ips);
        for round in 0..100 {
            let there = some(&pods, round);
            world.apply(&web("web", ips, &there)[1..]);
            for to in [to4, to6] {
                until_programmed(&world, "node-a", to, &there);
            }
            // From here on nothing new goes to an endpoint that is not in the Service.
            let names: BTreeSet<_> = there.iter().map(|pod| pod.name()).collect();
            for (via, to) in [(Via::Tcp, to4), (Via::Udp, to6), (Via::UdpConnected, to4)] {
                for endpoint in answers(&client, via, to, 4).keys() {
                    assert!(
                        names.contains(endpoint.as_str()),
                        "round {round}, {via:?}: {endpoint}, not {names:?}"
                    );
                }
            }
        }
        let answered = traffic.end_unharmed();
        assert_eq!(answered.len(), 6, "{answered:?}");
    }
}

#[test]
fn services_that_come_and_go_do_not_disturb_another() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("come-and-go", from, &[("node-a", &["client", "web-1", "web-2"])]);
        let pods = ["web-1", "web-2"].map(|name| world.pod(name));
        let _servers = pods.each_ref().map(|pod| pod.serve(8080).unwrap());
        let ips = cluster_ips();
        let client = world.pod("client");
        world.apply(&web("steady", ips, &[&pods[0]]));
        until_answered_by(&client, Via::Tcp, (ips.0, 80).into(), "web-1");
        until_answered_by(&client, Via::Udp, (ips.1, 80).into(), "web-1");

        let traffic = Traffic::start(&client, ips);
        world.apply(&[slice("default", "other", "other")
            .port("tcp", "TCP", 8080)
            .endpoint(pods[1].endpoint4())
            .build()]);
        let mut before = None;
        for round in 0..24_u16 {
            // The same name each time, but another address and port.
            let (v4, _v6) = cluster_ips();
            let port = 8000 + round;
            let other = service("default", "other").cluster_ip(v4).port("tcp", "TCP", port, 8080).build();
            world.apply(std::slice::from_ref(&other));
            until_answered_by(&client, Via::Tcp, (v4, port).into(), "web-2");
            if let Some(before) = before.replace(v4) {
                until_gone(&world, "node-a", before);
            }
            // In every other round the Service is there already when its address changes.
            if round % 2 == 0 {
                world.delete(&other);
                until_gone(&world, "node-a", v4);
            }
        }
        let answered = traffic.end_unharmed();
        assert_eq!(answered.keys().collect::<Vec<_>>(), ["web-1"]);
    }
}

#[test]
fn a_burst_of_updates_ends_in_the_last_one() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("burst", from, &[("node-a", &PODS)]);
        let pods: Vec<Pod> = PODS[1..].iter().map(|name| world.pod(name)).collect();
        let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(8080).unwrap()).collect();
        let (steady, burst) = (cluster_ips(), cluster_ips());
        let client = world.pod("client");
        world.apply(&web("steady", steady, &[&pods[0]]));
        until_answered_by(&client, Via::Tcp, (steady.0, 80).into(), "web-1");
        until_answered_by(&client, Via::Udp, (steady.1, 80).into(), "web-1");

        let traffic = Traffic::start(&client, steady);
        for update in 1..=100_u16 {
            let pod = &pods[usize::from(update) % pods.len()];
            let port = 1000 + update;
            world.apply(&[
                service("default", "burst").cluster_ip(burst.0).port("tcp", "TCP", port, 8080).build(),
                slice("default", "burst", "burst").port("tcp", "TCP", 8080).endpoint(pod.endpoint4()).build(),
            ]);
        }
        let last = &pods[100 % pods.len()];
        until_answered_by(&client, Via::Tcp, (burst.0, 1100).into(), last.name());
        until_programmed(&world, "node-a", (burst.0, 1100).into(), &[last]);
        let ports: Vec<_> = frontends(&world, "node-a")
            .iter()
            .filter(|frontend| frontend["service"] == "default/burst")
            .map(|frontend| frontend["port"].clone())
            .collect();
        assert_eq!(ports, [1100], "ports of updates that are long past");
        for port in [1001, 1099] {
            let failure = client.run(|| ask(Via::Tcp, (burst.0, port).into())).unwrap_err();
            assert!(failure.refused(), "port {port}: {failure}");
        }
        traffic.end_unharmed();
    }
}
