//! What the agent says of its health, on the port that cloud load balancers probe.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::{
    api_server::Kind,
    lab::{Node, Place, available, objects::NodeBuilder},
};

use crate::{
    helpers::{bpftool, cli, pins, small, until_logged},
    http::{Response, get, request, until, until_closed},
    scene::Scene,
    world::{From, SOON, SOURCES, World, cluster_ips, eventually},
};

const PORT: u16 = 10_256;
const NODE: &[(&str, &[&str])] = &[("node-a", &["web-1"])];
const TAINT: &str = "ToBeDeletedByClusterAutoscaler";

fn healthz(node: &Node) -> SocketAddr {
    (node.addresses().v4, PORT).into()
}

fn any(_: &Response) -> bool {
    true
}

/// A world, its client outside, and where its node is asked.
fn world(name: &str, from: From) -> (World, Place, SocketAddr) {
    let world = World::with(name, from, NODE, &[], |spec| spec.args(&["--sync-period", "1s"]));
    let outside = world.lab().add_outside("outside").expect("adding the client outside");
    let to = healthz(&world.node("node-a"));
    (world, outside, to)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn load_balancers_are_told_of_the_proxy_and_of_the_node() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let (world, outside, to) = world("healthz", from);
        let response = until(&outside, to, "/healthz", 200, any);
        assert_eq!(response.headers["content-type"], "application/json");
        assert_eq!(response.headers["x-content-type-options"], "nosniff");
        assert!(!response.body.contains('\n'), "{response:?}");
        let body = response.json();
        assert_eq!(keys(&body), ["currentTime", "healthy", "lastUpdated", "nodeEligible", "status"]);
        assert_eq!((&body["healthy"], &body["nodeEligible"]), (&json!(true), &json!(true)));
        assert_eq!(body["lastUpdated"], body["currentTime"]);
        for family in ["IPv4", "IPv6"] {
            assert_eq!(keys(&body["status"][family]), ["healthy", "lastUpdated"]);
            assert_eq!(body["status"][family]["healthy"], true);
        }
        let livez = get(&outside, to, "/livez").unwrap();
        assert_eq!(livez.code, 200);
        assert_eq!(keys(&livez.json()), ["currentTime", "healthy", "lastUpdated", "status"]);
        assert_eq!(get(&outside, to, "/readyz").unwrap().code, 200);
        assert_eq!(request(&outside, to, "POST", "/healthz?any=query").unwrap().code, 200);
        for path in ["/", "/healthz/", "/metrics"] {
            assert_eq!(get(&outside, to, path).unwrap().code, 404, "{path}");
        }

        // The autoscaler is about to take the node away, and changes its mind; then it is deleted.
        let node = || world.node("node-a").object();
        let deleted = |node: NodeBuilder| node.metadata("deletionTimestamp", json!("2026-01-01T00:00:00Z"));
        for leaving in [node().taint(TAINT, "NoSchedule"), deleted(node())] {
            world.apply(&[leaving.build()]);
            let body = until(&outside, to, "/healthz", 503, any).json();
            assert_eq!((&body["healthy"], &body["nodeEligible"]), (&json!(true), &json!(false)));
            assert_eq!(get(&outside, to, "/livez").unwrap().code, 200);
            world.apply(&[node().taint("node.kubernetes.io/unreachable", "NoExecute").build()]);
            until(&outside, to, "/healthz", 200, any);
        }
        world.delete(&node().build());
        if from == From::Api {
            until(&outside, to, "/healthz", 503, any);
            world.apply(&[node().build()]);
        }
        // Nobody takes a host away that is no part of a cluster.
        until(&outside, to, "/healthz", 200, any);
    }
}

#[test]
fn row_061_healthz_on_the_node_itself() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-061", from, NODE);
        until(&world.node("node-a"), (Ipv4Addr::LOCALHOST, PORT).into(), "/healthz", 200, any);
    }
}

#[test]
fn nobody_is_sent_to_a_node_before_its_first_sync() {
    if !available() {
        return;
    }
    let (mut world, outside, to) = world("first-sync", From::Api);
    world.take_agent("node-a").terminate().unwrap();
    cli(&world, "node-a", &["cleanup"]);
    world.api().refuse_kind(Kind::EndpointSlice, Some(503));
    world.launch_agent("node-a");
    let body = until(&outside, to, "/healthz", 503, any).json();
    assert_eq!((&body["healthy"], &body["lastUpdated"]), (&json!(false), &json!("0001-01-01T00:00:00Z")));
    assert!(body.get("status").is_none(), "{body}");
    // A restart would bring nothing.
    assert_eq!(get(&outside, to, "/livez").unwrap().code, 200);
    assert_eq!(get(&outside, to, "/readyz").unwrap().code, 503);
    world.api().refuse_kind(Kind::EndpointSlice, None);
    until(&outside, to, "/healthz", 200, any);

    // From then on the API server may be lost for as long as it likes.
    world.api().away();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        let response = get(&outside, to, "/healthz").unwrap();
        assert_eq!(response.code, 200, "{response:?}");
        thread::sleep(Duration::from_millis(100));
    }
    world.api().back();
}

#[test]
fn what_the_kernel_refuses_for_long_makes_the_proxy_unhealthy() {
    if !available() {
        return;
    }
    let flags = ["--max-frontends", "40", "--sync-period", "1s"];
    let scene = Scene::with("refusing", From::Api, 1, |spec| spec.args(&flags));
    let node = scene.node();
    let to = healthz(&node);
    let ask = |path: &str| get(&node, to, path).unwrap();
    until(&node, to, "/healthz", 200, any);
    // Somebody fills the map behind the agent's back: it counts on room that is not there.
    let map = node.bpffs().join(pins(&node, "maps-")).join("FRONTENDS4");
    let map = map.to_str().expect("a path in UTF-8").to_owned();
    let shape = bpftool(&node, &["map", "show", "pinned", &map]);
    let bytes = |field: &str, last: usize| {
        let length = usize::try_from(shape[field].as_u64().expect("a size")).expect("a size");
        let mut bytes = vec!["255".to_owned(); length];
        bytes[0] = last.to_string();
        bytes
    };
    let fillers: Vec<_> = (0..40).map(|number| bytes("bytes_key", number)).collect();
    let edit = |what: &str, key: &[String], value: &[String]| {
        let mut arguments: Vec<&str> = vec!["map", what, "pinned", &map, "key"];
        arguments.extend(key.iter().map(String::as_str));
        if !value.is_empty() {
            arguments.push("value");
            arguments.extend(value.iter().map(String::as_str));
        }
        crate::helpers::try_bpftool(&node, &arguments).status.success()
    };
    let filled = fillers.iter().filter(|key| edit("update", key, &bytes("bytes_value", 0))).count();
    assert!(filled > 30, "{filled}");

    let mark = scene.world.agent("node-a").mark();
    let refused = Instant::now();
    scene.world.apply(&small("web", cluster_ips().0, &[&scene.pods[0]]));
    until_logged(&scene.world, "node-a", mark, &["default/web", "not programmed"]);
    // It is late only when it has waited for two periods.
    let body = until(&node, to, "/healthz", 503, any).json();
    assert!(refused.elapsed() >= Duration::from_secs(2), "{:?}", refused.elapsed());
    assert_eq!((&body["healthy"], &body["nodeEligible"]), (&json!(false), &json!(true)));
    let of = |family: &str| body["status"][family]["healthy"].as_bool().unwrap();
    assert!(!of("IPv4") && of("IPv6"), "{body}");
    assert!(body["lastUpdated"].as_str() < body["currentTime"].as_str(), "{body}");
    assert_eq!((ask("/livez").code, ask("/readyz").code), (503, 503));
    // Other changes do not hide it.
    scene.world.apply(&[node.object().zone("elsewhere").build()]);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(ask("/healthz").code, 503);

    for key in &fillers {
        edit("delete", key, &[]);
    }
    let deadline = Instant::now() + SOON * 3;
    while ask("/healthz").code != 200 {
        assert!(Instant::now() < deadline, "{:?}", ask("/healthz"));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask("/livez").code, 200);
}

#[test]
fn a_service_that_has_no_room_is_no_reason_to_leave_the_node() {
    if !available() {
        return;
    }
    let flags = ["--max-frontends", "2", "--sync-period", "100ms"];
    let scene = Scene::with("no-room", From::Manifests, 1, |spec| spec.args(&flags));
    let node = scene.node();
    let mark = scene.world.agent("node-a").mark();
    for name in ["one", "two"] {
        scene.world.apply(&small(name, cluster_ips().0, &[&scene.pods[0]]));
    }
    until_logged(&scene.world, "node-a", mark, &["not programmed", "full"]);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(get(&node, healthz(&node), "/healthz").unwrap().code, 200);
}

#[test]
fn an_address_that_is_taken_is_waited_for_or_the_end() {
    if !available() {
        return;
    }
    let (mut world, outside, to) = world("taken", From::Api);
    let node = world.node("node-a");
    world.take_agent("node-a").terminate().unwrap();
    let other = node.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).expect("taking the port");
    world.start_agent("node-a");
    until_logged(&world, "node-a", 0, &["cannot serve /healthz on 0.0.0.0:10256", "trying again"]);
    drop(other);
    until(&outside, to, "/healthz", 200, any);

    world.take_agent("node-a").terminate().unwrap();
    let _other = node.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).expect("taking the port");
    let before = world.agent_spec("node-a").clone();
    world.start_otherwise("node-a", |spec| spec.arg("--bind-address-hard-fail"));
    world.launch_agent("node-a");
    let line = world.agent("node-a").log();
    eventually("its last words", || {
        let all = line.all();
        let last = |words: &str| all.iter().any(|line| line.text.contains(words));
        if last("--healthz-bind-address") { Ok(()) } else { Err(format!("{} lines", all.len())) }
    });
    let events = world.api().events();
    let event = events.iter().find(|event| event["reason"] == "FailedToStartProxierHealthcheck");
    let event = event.unwrap_or_else(|| panic!("no such event: {events:?}"));
    assert_eq!(event["regarding"]["kind"], "Node");
    assert_eq!((&event["type"], &event["action"]), (&json!("Warning"), &json!("StartKubeProxy")));
    drop(world.take_agent("node-a"));

    // Elsewhere, and nowhere.
    let v6 = SocketAddr::new(IpAddr::V6(node.addresses().v6), 9999);
    world.start_otherwise("node-a", |_| before.clone().args(&["--healthz-bind-address", "[::]:9999"]));
    world.start_agent("node-a");
    until(&outside, v6, "/healthz", 200, any);
    until(&outside, (node.addresses().v4, 9999).into(), "/healthz", 200, any);
    world.take_agent("node-a").terminate().unwrap();
    drop(_other);
    world.start_otherwise("node-a", |_| before.args(&["--healthz-port", "0"]));
    world.start_agent("node-a");
    until_closed(&outside, to);
}
