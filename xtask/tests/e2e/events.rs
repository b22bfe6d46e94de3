//! What people are told by events of the API server.

use serde_json::{Value, json};
use xtask::lab::available;

use crate::{
    helpers::{Traffic, cli, small, until_logged, web},
    scene::Scene,
    world::{From, World, cluster_ips, eventually},
};

/// Ids as the API server gives them, by which kubectl finds the events of an object.
const UID: &str = "5e1b6b5c-7d0f-4d3a-9f43-0123456789ab";

/// The events with this reason.
fn events(world: &World, reason: &str) -> Vec<Value> {
    world.api().events().into_iter().filter(|event| event["reason"] == reason).collect()
}

/// Waits for an event that is as wanted.
fn until_said(world: &World, reason: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("an event {reason}"), || {
        let found = events(world, reason).into_iter().find(&wanted);
        found.ok_or_else(|| format!("{:?}", world.api().events()))
    })
}

/// A Service with a node port that is none.
fn malformed(name: &str, node_port: u32) -> Value {
    let [mut service, _] = small(name, cluster_ips().0, &[]);
    service["metadata"]["uid"] = json!(UID);
    service["spec"]["ports"][0]["nodePort"] = json!(node_port);
    service
}

#[test]
fn a_node_is_told_that_its_proxy_starts() {
    if !available() {
        return;
    }
    let mut world = World::new("starting", From::Api, &[("node-a", &[])]);
    let event = until_said(&world, "Starting", |_| true);
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "node-a"})
    );
    assert_eq!(event["metadata"]["namespace"], "default");
    assert_eq!([&event["type"], &event["action"]], ["Normal", "StartKubeProxy"]);
    assert_eq!(
        [&event["reportingController"], &event["reportingInstance"]],
        ["kube-proxy", "kube-proxy-node-a"]
    );
    // Each start anew, and also when the API server comes later.
    world.take_agent("node-a").terminate().unwrap();
    world.api().away();
    world.launch_agent("node-a");
    until_logged(&world, "node-a", 0, &["events cannot be sent"]);
    world.api().back();
    eventually("another", || match events(&world, "Starting").len() {
        2 => Ok(()),
        other => Err(format!("{other}")),
    });
}

#[test]
fn what_is_refused_of_an_object_is_said_once_by_all_nodes() {
    if !available() {
        return;
    }
    let nodes: &[(&str, &[&str])] = &[("node-a", &["web-1"]), ("node-b", &[])];
    let world = World::new("refused-events", From::Api, nodes);
    world.apply(&[malformed("web", 70_000)]);
    let event = until_said(&world, "InvalidField", |_| true);
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "web", "uid": UID})
    );
    assert_eq!([&event["type"], &event["action"]], ["Warning", "Program"]);
    assert!(event["note"].as_str().unwrap().contains("spec.ports[0].nodePort 70000"), "{event}");
    // It comes and goes, and both nodes see it each time.
    for round in 0..5 {
        world.apply(&[malformed("web", 30_100 + round), malformed("web", 70_000)]);
    }
    // What comes later shows that the others have been dealt with.
    world.apply(&[malformed("web", 70_001)]);
    until_said(&world, "InvalidField", |event| event["note"].as_str().unwrap().contains("70001"));
    for node in ["node-a", "node-b"] {
        until_logged(&world, node, 0, &["spec.ports[0].nodePort 70001"]);
    }
    assert_eq!(events(&world, "InvalidField").len(), 2, "{:?}", events(&world, "InvalidField"));

    // Two Services at one address; a slice with an address that is none.
    let ip = cluster_ips().0;
    let [mut older, _] = small("older", ip, &[]);
    older["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    let [younger, mut broken] = small("younger", ip, &[&world.pod("web-1")]);
    broken["endpoints"][0]["addresses"] = json!(["nowhere"]);
    world.apply(&[older, younger, broken]);
    let event = until_said(&world, "AddressConflict", |_| true);
    assert_eq!(event["regarding"]["name"], "younger");
    assert!(event["note"].as_str().unwrap().contains("Service default/older, which is older"), "{event}");
    let event = until_said(&world, "InvalidField", |event| event["regarding"]["kind"] == "EndpointSlice");
    assert_eq!(event["regarding"]["apiVersion"], "discovery.k8s.io/v1");
    assert!(event["note"].as_str().unwrap().contains("\"nowhere\""), "{event}");
}

#[test]
fn a_service_that_has_no_room_on_a_node_is_told_so() {
    if !available() {
        return;
    }
    let scene = Scene::with("full-events", From::Api, 1, |spec| spec.args(&["--max-frontends", "2"]));
    for name in ["one", "two"] {
        scene.world.apply(&small(name, cluster_ips().0, &[&scene.pods[0]]));
    }
    let event = until_said(&scene.world, "MapFull", |_| true);
    assert_eq!(event["regarding"]["kind"], "Service");
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("node node-a") && note.contains("--max-frontends"), "{note}");
}

#[test]
fn who_may_not_say_anything_works_on() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("mute", From::Api, 2);
    let ips = scene.served("steady");
    let traffic = Traffic::start(&scene.client, ips);
    for status in [403, 500] {
        scene.api().refuse_events(Some(status));
        let mark = scene.world.agent("node-a").mark();
        for number in 0..10 {
            scene.world.apply(&[malformed(&format!("bad-{status}-{number}"), 70_000)]);
        }
        until_logged(&scene.world, "node-a", mark, &["events cannot be sent"]);
        scene.world.apply(&web("steady", ips, &[&scene.pods[1]])[1..]);
        scene.until(ips, "web-2");
        scene.world.apply(&web("steady", ips, &[&scene.pods[0]])[1..]);
        scene.until(ips, "web-1");
    }
    traffic.end_unharmed();
    let log = scene.world.agent("node-a").log().all();
    let said = log.iter().filter(|line| line.text.contains("events cannot be sent")).count();
    assert!((1..=4).contains(&said), "{said} lines for one cause each");
    let posts = scene.api().requests().into_iter().filter(|request| request.method == "POST").count();
    assert!(posts < 40, "{posts} requests: it does not hold back");
    // Without an API server there is nobody to be told.
    drop(scene);
    scene = Scene::new("no-events", From::Manifests, 1);
    scene.world.apply(&[malformed("bad", 70_000)]);
    until_logged(&scene.world, "node-a", 0, &["spec.ports[0].nodePort 70000"]);
    assert!(!cli(&scene.world, "node-a", &["services"]).is_empty());
}
