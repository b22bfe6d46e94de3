//! What the agent asks an API server for, and what it makes of objects: labels, deletions, malformed ones.

use serde_json::{Value, json};
use xtask::{
    api_server::{Cut, Kind, Request},
    lab::{Via, ask, available, objects::slice},
};

use crate::{
    helpers::{Traffic, frontends, has_address, until_gone, until_logged, web},
    scene::Scene,
    world::{From, answers, cluster_ips, eventually, until_answered_by, until_refused},
};

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

#[test]
fn only_what_is_needed_is_asked_for() {
    if !available() {
        return;
    }
    let scene = Scene::new("requests", From::Api, 2);
    scene.served("web");
    scene.world.api().cut_streams(Cut::Broken);
    scene.until_all_is_seen();
    let requests = scene.world.api().requests();
    let of = |kind: Kind| requests.iter().filter(move |request| Kind::at(&request.path) == Some(kind));
    let selected = |request: &Request, selector: &str| request.query.split('&').any(|part| part == selector);
    let services = format!("labelSelector=!{PROXY_NAME}");
    let slices = format!("labelSelector=!{HEADLESS}");
    for (kind, selectors) in [
        (Kind::Service, &[services.as_str(), "fieldSelector=spec.clusterIP!=None"][..]),
        (Kind::EndpointSlice, &[slices.as_str()]),
        (Kind::Node, &["fieldSelector=metadata.name=node-a"]),
    ] {
        assert!(of(kind).count() >= 2, "a list and a watch of {kind:?}: {requests:?}");
        for request in of(kind) {
            for selector in selectors {
                assert!(selected(request, selector), "{selector} is missing: {request:?}");
            }
            let extra = request.query.matches("Selector=").count() - selectors.len();
            assert_eq!(extra, 0, "{request:?}");
        }
    }
    for request in &requests {
        if request.path.starts_with("/apis/events.k8s.io/v1/") {
            assert_eq!(request.method, "POST", "{request:?}");
            continue;
        }
        assert_eq!(request.method, "GET", "{request:?}");
        assert!(Kind::at(&request.path).is_some(), "system:node-proxier may not ask for {request:?}");
        if request.query.contains("watch=") {
            assert!(request.query.contains("allowWatchBookmarks=true"), "{request:?}");
            assert!(request.query.contains("timeoutSeconds="), "{request:?}");
        }
    }
}

#[test]
fn a_watch_goes_on_from_the_last_bookmark() {
    if !available() {
        return;
    }
    let scene = Scene::new("bookmarks", From::Api, 2);
    let ips = scene.served("web");
    let api = scene.world.api();
    // Only slices change; nothing but a bookmark tells the watch of Services about the new versions.
    for turn in 0..10 {
        scene.world.apply(&web("web", ips, &[&scene.pods[(turn + 1) % 2]])[1..]);
    }
    scene.until(ips, "web-1");
    let watches = || -> Vec<u64> {
        let requests = api.requests();
        let watches = requests.iter().filter(|request| {
            Kind::at(&request.path) == Some(Kind::Service) && request.query.contains("watch=")
        });
        let version = |request: &Request| {
            let version = request.query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
            version.expect("a resource version").parse().expect("a number")
        };
        watches.map(version).collect()
    };
    let before = watches();
    api.send_bookmark();
    api.cut_streams(Cut::Clean);
    eventually("another watch", || if watches().len() > before.len() { Ok(()) } else { Err("none yet") });
    let after = watches();
    assert!(after.last().unwrap() >= &(before.last().unwrap() + 20), "{before:?}, then {after:?}");
    scene.until_all_is_seen();
}

#[test]
fn the_proxy_name_label_takes_a_service_away_and_gives_it_back() {
    if !available() {
        return;
    }
    let scene = Scene::new("proxy-name", From::Api, 2);
    let (ips, steady) = (scene.served("web"), scene.served("steady"));
    let traffic = Traffic::start(&scene.client, steady);
    for name in ["other-proxy", ""] {
        let [mut service, ..] = web("web", ips, &[]);
        service["metadata"]["labels"][PROXY_NAME] = json!(name);
        scene.world.apply(&[service]);
        until_gone(&scene.world, "node-a", ips.0);
        until_gone(&scene.world, "node-a", ips.1);
        scene.world.apply(&web("web", ips, &[])[..1]);
        scene.until(ips, "web-1");
    }
    // A Service that is labelled from the start is never seen, and on a slice the label means nothing.
    let hidden = cluster_ips();
    let [mut service, slices @ ..] = web("hidden", hidden, &[&scene.pods[0]]);
    service["metadata"]["labels"][PROXY_NAME] = json!("other-proxy");
    scene.world.apply(&[service]);
    scene.world.apply(&slices);
    let mut labelled = web("web", ips, &[&scene.pods[1]]);
    for slice in &mut labelled[1..] {
        slice["metadata"]["labels"][PROXY_NAME] = json!("other-proxy");
    }
    scene.world.apply(&labelled[1..]);
    scene.until(ips, "web-2");
    scene.until_all_is_seen();
    assert!(!has_address(&scene.world, "node-a", hidden.0));
    traffic.end_unharmed();
}

#[test]
fn the_headless_label_hides_a_slice_but_not_a_service() {
    if !available() {
        return;
    }
    let scene = Scene::new("headless", From::Api, 2);
    let ips = scene.served("web");
    let mut objects = web("web", ips, &[&scene.pods[0]]);
    for object in &mut objects {
        object["metadata"]["labels"][HEADLESS] = json!("");
    }
    scene.world.apply(&objects);
    until_refused(&scene.client, Via::Tcp, (ips.0, 80).into());
    until_refused(&scene.client, Via::Udp, (ips.1, 80).into());
    assert!(has_address(&scene.world, "node-a", ips.0), "the label has hidden the Service");
    scene.world.apply(&web("web", ips, &[&scene.pods[0]])[1..]);
    scene.until(ips, "web-1");
    // A headless Service in the proper sense.
    let [mut service, ..] = web("web", ips, &[]);
    service["spec"]["clusterIP"] = json!("None");
    service["spec"]["clusterIPs"] = json!(["None"]);
    scene.world.apply(&[service]);
    until_gone(&scene.world, "node-a", ips.0);
}

#[test]
fn deletions_are_followed() {
    if !available() {
        return;
    }
    let scene = Scene::new("deleted", From::Api, 2);
    let ips = scene.served("web");
    let [service, v4, v6] = web("web", ips, &[&scene.pods[0]]);
    scene.world.delete(&v4);
    until_refused(&scene.client, Via::Tcp, (ips.0, 80).into());
    until_answered_by(&scene.client, Via::Tcp, (ips.1, 80).into(), "web-1");
    scene.world.delete(&v6);
    until_refused(&scene.client, Via::Udp, (ips.1, 80).into());
    scene.world.delete(&service);
    until_gone(&scene.world, "node-a", ips.0);
    until_gone(&scene.world, "node-a", ips.1);
    // In the other order, the slices first.
    scene.world.apply(&[v4, v6]);
    scene.until_all_is_seen();
    assert!(!has_address(&scene.world, "node-a", ips.0));
    scene.world.apply(&[service]);
    scene.until(ips, "web-1");
}

#[test]
fn a_slice_that_is_relabelled_moves_to_the_other_service() {
    if !available() {
        return;
    }
    let scene = Scene::new("relabelled", From::Api, 2);
    let (old, new) = (cluster_ips(), cluster_ips());
    scene.world.apply(&web("old", old, &[&scene.pods[0]]));
    scene.world.apply(&web("new", new, &[])[..1]);
    scene.until(old, "web-1");
    until_refused(&scene.client, Via::Tcp, (new.0, 80).into());
    let [_, mut v4, _] = web("old", old, &[&scene.pods[0]]);
    v4["metadata"]["labels"]["kubernetes.io/service-name"] = json!("new");
    scene.world.apply(std::slice::from_ref(&v4));
    until_answered_by(&scene.client, Via::Tcp, (new.0, 80).into(), "web-1");
    until_refused(&scene.client, Via::Tcp, (old.0, 80).into());
    until_answered_by(&scene.client, Via::Udp, (old.1, 80).into(), "web-1");
    scene.world.delete(&v4);
    until_refused(&scene.client, Via::Tcp, (new.0, 80).into());
}

/// An object with the value at a JSON pointer replaced.
fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    *object.pointer_mut(pointer).expect("a field that is there") = value;
    object
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_good_version() {
    if !available() {
        return;
    }
    let scene = Scene::new("unreadable", From::Api, 2);
    let (ips, steady) = (scene.served("web"), scene.served("steady"));
    let traffic = Traffic::start(&scene.client, steady);
    let [service, v4, _] = web("web", ips, &[&scene.pods[0]]);
    let before = |scene: &Scene| -> Vec<Value> {
        let all = frontends(&scene.world, "node-a");
        all.into_iter().filter(|frontend| frontend["service"] == "default/web").collect()
    };
    let bad = [
        ("Service", with(&service, "/spec", json!(7))),
        ("Service", with(&service, "/spec/ports", json!({"port": 80}))),
        ("Service", with(&service, "/spec/ports/0/port", json!("abc"))),
        ("Service", with(&service, "/spec/ports/0/port", json!(3_000_000_000_u64))),
        ("Service", with(&service, "/spec/clusterIPs", json!("10.96.0.1"))),
        ("EndpointSlice", with(&v4, "/endpoints", json!("none"))),
        ("EndpointSlice", with(&v4, "/endpoints/0/addresses", json!("10.244.1.9"))),
        ("EndpointSlice", with(&v4, "/endpoints/0/conditions", json!([true]))),
        ("EndpointSlice", with(&v4, "/ports/0/port", json!("abc"))),
        ("EndpointSlice", with(&v4, "/addressType", json!(4))),
    ];
    for (kind, object) in bad {
        let (good, mark) = (before(&scene), scene.world.agent("node-a").mark());
        scene.world.apply(std::slice::from_ref(&object));
        until_logged(&scene.world, "node-a", mark, &[kind, "default/web", "last readable state is kept"]);
        scene.until_all_is_seen();
        assert_eq!(before(&scene), good, "{object}");
        scene.until(ips, "web-1");
        // Listing it again does not lose it either.
        scene.world.api().expire();
        scene.until_all_is_seen();
        assert_eq!(before(&scene), good, "{object}, in a list");
        // Its next good version counts, also when that is a deletion.
        scene.world.apply(&web("web", ips, &[&scene.pods[1]]));
        scene.until(ips, "web-2");
        scene.world.apply(&web("web", ips, &[&scene.pods[0]]));
        scene.until(ips, "web-1");
    }
    scene.world.apply(&[with(&service, "/spec", json!(7))]);
    scene.world.delete(&service);
    until_gone(&scene.world, "node-a", ips.0);
    traffic.end_unharmed();
}

#[test]
fn impossible_values_are_skipped_and_the_rest_of_the_object_counts() {
    if !available() {
        return;
    }
    let scene = Scene::new("impossible", From::Api, 2);
    let steady = scene.served("steady");
    let traffic = Traffic::start(&scene.client, steady);
    // Each on an object of its own, with something good beside it: the second port, the second endpoint.
    let service_ports = [
        (json!({"name": "bad", "port": 0, "protocol": "TCP"}), "spec.ports[0].port 0"),
        (json!({"name": "bad", "port": 70_000, "protocol": "TCP"}), "spec.ports[0].port 70000"),
        (json!({"name": "bad", "port": -1, "protocol": "TCP"}), "spec.ports[0].port -1"),
        (json!({"name": "bad", "port": 81, "protocol": "QUIC"}), "QUIC"),
    ];
    for (index, (port, complaint)) in service_ports.into_iter().enumerate() {
        let (name, ips) = (format!("service-{index}"), cluster_ips());
        let mut objects = web(&name, ips, &[&scene.pods[0]]);
        objects[0]["spec"]["ports"].as_array_mut().unwrap().insert(0, port);
        complained(&scene, &name, &objects, complaint);
        scene.until(ips, "web-1");
        let refused = scene.client.run(|| ask(Via::Tcp, (ips.0, 81).into())).unwrap_err();
        assert!(refused.refused(), "{refused}");
    }
    let pod = |address: &str| json!({"addresses": [address], "conditions": {"ready": true}});
    let slices = [
        ("/ports/0", json!({"name": "x", "port": 0, "protocol": "TCP"}), "ports[0].port 0"),
        ("/ports/0", json!({"name": "x", "port": 70_000, "protocol": "TCP"}), "ports[0].port 70000"),
        ("/ports/0", json!({"name": "x", "port": 9, "protocol": "QUIC"}), "QUIC"),
        ("/endpoints/0", pod("not-an-ip"), "not-an-ip"),
        ("/endpoints/0", pod("fd00::1"), "fd00::1"),
        ("/endpoints/0", pod("0.0.0.0"), "0.0.0.0"),
        ("/endpoints/0", json!({"addresses": []}), "addresses"),
    ];
    for (index, (pointer, value, complaint)) in slices.into_iter().enumerate() {
        let (name, ips) = (format!("slice-{index}"), cluster_ips());
        let mut objects = web(&name, ips, &[&scene.pods[0]]);
        let list = &pointer[..pointer.len() - 2];
        objects[1].pointer_mut(list).unwrap().as_array_mut().unwrap().insert(0, value);
        complained(&scene, &name, &objects, complaint);
        scene.until(ips, "web-1");
        let seen = answers(&scene.client, Via::Tcp, (ips.0, 80).into(), 20);
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["web-1"], "{complaint}");
    }
    // Of an address type that nobody knows: that slice alone is skipped.
    let (name, ips) = ("address-type", cluster_ips());
    let mut objects = web(name, ips, &[&scene.pods[0]]).to_vec();
    let strange = slice("default", "address-type-strange", name).port("tcp", "TCP", 8080);
    objects.push(strange.endpoint(scene.pods[1].endpoint4()).field("addressType", json!("IPX")).build());
    complained(&scene, name, &objects, "IPX");
    scene.until(ips, "web-1");
    assert_eq!(answers(&scene.client, Via::Tcp, (ips.0, 80).into(), 20).len(), 1);
    traffic.end_unharmed();
}

/// Applies objects and waits for the line in the log that says what is wrong with the one of this name.
fn complained(scene: &Scene, name: &str, objects: &[Value], complaint: &str) {
    let mark = scene.world.agent("node-a").mark();
    scene.world.apply(objects);
    until_logged(&scene.world, "node-a", mark, &[&format!("default/{name}"), complaint]);
}
