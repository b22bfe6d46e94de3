//! More than the maps hold: one Service is refused and named, the others work, and room is used when it comes.

use std::net::Ipv4Addr;

use xtask::lab::{AgentSpec, Via, available};

use crate::{
    helpers::{endpoints, frontends, small, until_gone, until_logged, until_programmed},
    scene::Scene,
    world::{From, SOURCES, answers, cluster_ips, until_answered_by},
};

fn ip() -> Ipv4Addr {
    cluster_ips().0
}

fn limited(name: &str, from: From, flag: &str, capacity: u32) -> Scene {
    Scene::with(name, from, 6, |spec| spec.arg(flag).arg(capacity.to_string()))
}

/// Applies a Service and waits until it is served by exactly these pods.
fn serve(scene: &Scene, name: &str, ip: Ipv4Addr, pods: std::ops::Range<usize>) {
    let pods: Vec<_> = scene.pods[pods].iter().collect();
    scene.world.apply(&small(name, ip, &pods));
    until_programmed(&scene.world, "node-a", (ip, 80).into(), &pods);
}

/// Applies a Service and waits until the log says that there is no room for it, and how to get some.
fn refuse(scene: &Scene, name: &str, ip: Ipv4Addr, pods: std::ops::Range<usize>, map: &str, flag: &str) {
    let mark = scene.world.agent("node-a").mark();
    let pods: Vec<_> = scene.pods[pods].iter().collect();
    scene.world.apply(&small(name, ip, &pods));
    until_logged(&scene.world, "node-a", mark, &[&format!("default/{name}"), map, "full", flag]);
}

#[test]
fn a_service_with_too_many_endpoints_is_refused_alone() {
    if !available() {
        return;
    }
    for (flag, map) in [("--max-slots", "SLOTS"), ("--max-backends", "BACKENDS4")] {
        for from in SOURCES {
            let scene = limited("endpoints", from, flag, 8);
            let [large, little, other, late] = [ip(), ip(), ip(), ip()];
            serve(&scene, "large", large, 0..5);
            serve(&scene, "little", little, 5..6);
            refuse(&scene, "other", other, 0..3, map, flag);
            // Nothing of it, whatever was heard of first: the Service or its endpoints.
            let all = frontends(&scene.world, "node-a");
            let here = all.iter().filter(|frontend| frontend["address"] == *other.to_string());
            assert!(here.map(endpoints).all(|endpoints| endpoints.is_empty()), "half of it: {all:?}");
            // The others work and are followed; a smaller one still fits.
            assert_eq!(answers(&scene.client, Via::Tcp, (large, 80).into(), 100).len(), 5);
            until_answered_by(&scene.client, Via::Tcp, (little, 80).into(), "web-6");
            serve(&scene, "late", late, 5..6);
            // A large one gets smaller, and there is room.
            serve(&scene, "large", large, 0..1);
            let three: Vec<_> = scene.pods[..3].iter().collect();
            until_programmed(&scene.world, "node-a", (other, 80).into(), &three);
            assert_eq!(answers(&scene.client, Via::Tcp, (other, 80).into(), 100).len(), 3);
        }
    }
}

#[test]
fn an_update_that_does_not_fit_leaves_the_service_as_it_was() {
    if !available() {
        return;
    }
    // Both lists, the old and the new one, need slots at the same time.
    for (flag, map, capacity) in [("--max-slots", "SLOTS", 10), ("--max-backends", "BACKENDS4", 8)] {
        let scene = limited("update", From::Api, flag, capacity);
        let [large, other] = [ip(), ip()];
        serve(&scene, "large", large, 0..2);
        serve(&scene, "other", other, 0..4);
        refuse(&scene, "large", large, 0..6, map, flag);
        until_programmed(
            &scene.world,
            "node-a",
            (large, 80).into(),
            &scene.pods[..2].iter().collect::<Vec<_>>(),
        );
        assert_eq!(answers(&scene.client, Via::Tcp, (large, 80).into(), 50).len(), 2);
        scene.world.delete(&small("other", other, &[])[0]);
        until_programmed(&scene.world, "node-a", (large, 80).into(), &scene.all());
    }
}

#[test]
fn full_maps_can_still_get_rid_of_endpoints() {
    if !available() {
        return;
    }
    let scene = limited("shrink", From::Api, "--max-backends", 7);
    let ip = ip();
    // Id 0 stands for nothing: there are six.
    serve(&scene, "large", ip, 0..6);
    for left in (0..6).rev() {
        serve(&scene, "large", ip, 0..left);
    }
    serve(&scene, "large", ip, 0..6);
}

#[test]
fn services_beyond_the_capacity_are_refused_alone() {
    if !available() {
        return;
    }
    // A cluster IP takes an entry for its port and one for all others; id 0 stands for nothing.
    for (flag, map, capacity) in [("--max-frontends", "FRONTENDS4", 6), ("--max-services", "SERVICES", 4)] {
        let scene = limited("services", From::Manifests, flag, capacity);
        let ips = [ip(), ip(), ip(), ip()];
        for (index, ip) in ips[..3].iter().enumerate() {
            serve(&scene, &format!("web-{index}"), *ip, index..index + 1);
        }
        refuse(&scene, "web-3", ips[3], 3..4, map, flag);
        for (index, ip) in ips[..3].iter().enumerate() {
            until_answered_by(&scene.client, Via::Tcp, (*ip, 80).into(), scene.pods[index].name());
        }
        // Changes of those that are there go on.
        serve(&scene, "web-0", ips[0], 4..6);
        scene.world.delete(&small("web-1", ips[1], &[])[0]);
        until_answered_by(&scene.client, Via::Tcp, (ips[3], 80).into(), "web-4");
        until_gone(&scene.world, "node-a", ips[1]);
    }
}

#[test]
fn more_room_after_a_restart_serves_what_was_refused() {
    if !available() {
        return;
    }
    let mut scene = limited("more-room", From::Manifests, "--max-slots", 4);
    let [one, two] = [ip(), ip()];
    serve(&scene, "one", one, 0..3);
    refuse(&scene, "two", two, 0..4, "SLOTS", "--max-slots");
    scene.world.take_agent("node-a").terminate().unwrap();
    // Still refused, and still said, by an agent that finds the maps as they are.
    scene.world.start_agent("node-a");
    until_logged(&scene.world, "node-a", 0, &["default/two", "SLOTS"]);
    until_programmed(&scene.world, "node-a", (one, 80).into(), &scene.pods[..3].iter().collect::<Vec<_>>());

    scene.world.take_agent("node-a").terminate().unwrap();
    let (node, folder) = (scene.node(), scene.world.manifests().path().to_owned());
    let larger = AgentSpec::with_manifests(&crate::world::agent_binary(), &node, &folder);
    scene.world.start_otherwise("node-a", |_| larger.arg("--max-slots").arg("100"));
    scene.world.start_agent("node-a");
    assert_eq!(answers(&scene.client, Via::Tcp, (two, 80).into(), 100).len(), 4);
}
