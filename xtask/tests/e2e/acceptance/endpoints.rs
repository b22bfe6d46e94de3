//! Endpoints and slices that come, change and go under a Service that stays.

use serde_json::json;
use xtask::lab::{
    Via, available,
    objects::{EndpointBuilder, slice},
};

use crate::{
    fixture::{Member, TARGET, Web, serve, until_exactly, until_served_by},
    world::{From, SOURCES, World, until_refused},
};

/// A client on one node, endpoints on both.
const TWO_NODES: &[(&str, &[&str])] = &[("node-a", &["client", "web-1"]), ("node-b", &["web-2", "web-3"])];

#[test]
fn row_001_endpoints_follow_pods() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-001", from, TWO_NODES);
        let _servers = serve(&world, &["web-1", "web-2", "web-3"]);
        let web = Web::new("web");
        let client = world.pod("client");
        // As they come and go, one at a time, down to none and up again.
        world.apply(&web.of(&[]));
        let steps: [&[&str]; 6] =
            [&["web-1"], &["web-1", "web-2"], &["web-1", "web-2", "web-3"], &["web-3"], &[], &["web-2"]];
        for step in steps {
            let members: Vec<_> = step.iter().map(|name| Member::pod(&world.pod(name))).collect();
            world.apply(&web.slices(&members));
            if step.is_empty() {
                for to in web.both() {
                    until_refused(&client, Via::Tcp, to);
                    until_refused(&client, Via::Udp, to);
                }
            } else {
                until_served_by(&client, &web, step);
            }
        }
    }
}

#[test]
fn row_020_021_022_unready_and_terminating_endpoints_if_published() {
    if !available() {
        return;
    }
    let world = World::new("row-020", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-2"]);
    let web = Web::new("web");
    let clients = [world.pod("client"), world.pod("web-3")];
    // What the EndpointSlice controller writes about a pod that never gets ready, alive and being
    // deleted, with publishNotReadyAddresses and without.
    let apply = |terminating: bool, published: bool| {
        let conditions = |endpoint: EndpointBuilder| endpoint.conditions(published, published, terminating);
        world.apply(&web.slices(&[Member::pod(&world.pod("web-2")).with(conditions)]));
        for client in &clients {
            if published {
                until_served_by(client, &web, &["web-2"]);
            } else {
                for to in web.both() {
                    until_refused(client, Via::Tcp, to);
                    until_refused(client, Via::UdpConnected, to);
                }
            }
        }
    };
    let publish = |published: bool| {
        world.apply(&[web.service().spec("publishNotReadyAddresses", json!(published)).build()]);
    };
    publish(true);
    apply(false, true);
    publish(false);
    apply(true, false);
    publish(true);
    apply(true, true);
    // A pod that is being deleted need not say that it serves.
    let not_serving = |endpoint: EndpointBuilder| endpoint.conditions(true, false, true);
    world.apply(&web.slices(&[Member::pod(&world.pod("web-2")).with(not_serving)]));
    for _round in 0..5 {
        until_served_by(&clients[0], &web, &["web-2"]);
    }
    publish(false);
    apply(false, false);
}

#[test]
fn row_032_an_evicted_pod_leaves_a_refusal() {
    if !available() {
        return;
    }
    let world = World::new("row-032", From::Manifests, TWO_NODES);
    let _servers = serve(&world, &["web-2"]);
    let web = Web::new("web");
    let client = world.pod("client");
    world.apply(&web.of(&[&world.pod("web-2")]));
    until_served_by(&client, &web, &["web-2"]);
    // The controller deletes the slices of a Service without pods sooner or later; it first empties them.
    let slices = web.slices(&[]);
    world.apply(&slices);
    for to in web.both() {
        until_refused(&client, Via::Tcp, to);
    }
    slices.iter().for_each(|slice| world.delete(slice));
    world.apply(&web.slices(&[Member::pod(&world.pod("web-2"))]));
    until_served_by(&client, &web, &["web-2"]);
    slices.iter().for_each(|slice| world.delete(slice));
    for to in web.both() {
        until_refused(&client, Via::Tcp, to);
    }
}

#[test]
fn row_072_073_a_deleted_endpoint_answers_no_more() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-072", from, TWO_NODES);
        // All go on serving: only the slices say who is to be asked.
        let _servers = serve(&world, &["web-1", "web-2", "web-3"]);
        let web = Web::new("web");
        let pods = ["web-1", "web-2", "web-3"].map(|name| world.pod(name));
        world.apply(&web.of(&pods.each_ref()));
        for client in [&*world.pod("client"), &*pods[0], &*world.node("node-a"), &*world.node("node-b")] {
            until_served_by(client, &web, &["web-1", "web-2", "web-3"]);
        }
        world.apply(&web.of(&[&pods[1], &pods[2]]));
        for client in [&*world.pod("client"), &*pods[0], &*world.node("node-a"), &*world.node("node-b")] {
            until_served_by(client, &web, &["web-2", "web-3"]);
        }
    }
}

#[test]
fn row_119_several_ports_in_several_slices() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-119", from, TWO_NODES);
        let web = Web::new("custom");
        let pod = world.pod("web-2");
        let _servers = [pod.serve(3000).unwrap(), pod.serve(3001).unwrap()];
        world.apply(&[web.bare().port("one", "TCP", 8080, 3000).port("two", "TCP", 8081, 3001).build()]);
        let label = |slice: xtask::lab::objects::SliceBuilder| {
            slice.label("endpointslice.kubernetes.io/managed-by", "someone").build()
        };
        world.apply(&[
            label(slice("default", "a", "custom").port("one", "TCP", 3000).endpoint(pod.endpoint4())),
            label(slice("default", "b", "custom").port("two", "TCP", 3001).endpoint(pod.endpoint4())),
            label(slice("default", "c", "custom").port("one", "TCP", 3000).endpoint(pod.endpoint6())),
            label(slice("default", "d", "custom").port("two", "TCP", 3001).endpoint(pod.endpoint6())),
        ]);
        let client = world.pod("client");
        for ip in web.both().map(|to| to.ip()) {
            for (port, target) in [(8080, 3000), (8081, 3001)] {
                until_exactly(&client, Via::Tcp, (ip, port).into(), &["web-2"]);
                let answer = client.run(|| xtask::lab::ask(Via::Tcp, (ip, port).into())).unwrap();
                assert_eq!(answer.local.port(), target);
            }
        }
    }
}

#[test]
fn row_120_several_endpoints_in_several_slices() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-120", from, TWO_NODES);
        let _servers = serve(&world, &["web-1", "web-2", "web-3"]);
        let web = Web::new("custom");
        world.apply(&[web.service().build()]);
        for name in ["web-1", "web-2", "web-3"] {
            let pod = world.pod(name);
            let slices = [(4, pod.endpoint4()), (6, pod.endpoint6())].map(|(family, endpoint)| {
                slice("default", &format!("{name}-{family}"), "custom")
                    .port("tcp", "TCP", TARGET)
                    .port("udp", "UDP", TARGET)
                    .endpoint(endpoint)
                    .build()
            });
            world.apply(&slices);
        }
        let client = world.pod("client");
        until_served_by(&client, &web, &["web-1", "web-2", "web-3"]);
        // A slice goes, and with it its endpoint; the others stay.
        for family in [4, 6] {
            world.delete(&slice("default", &format!("web-2-{family}"), "custom").build());
        }
        until_served_by(&client, &web, &["web-1", "web-3"]);
    }
}

#[test]
fn row_121_slices_mirrored_from_endpoints() {
    if !available() {
        return;
    }
    let world = World::new("row-121", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let web = Web::new("mirrored");
    let client = world.pod("client");
    world.apply(&[web.service().build()]);
    // Mirrored endpoints have no conditions but ready, and need not name a node.
    let mirrored = |pod: &str, ready: bool| {
        let addresses = world.pod(pod).addresses();
        let slices = addresses.both().map(|address| {
            let name = format!("mirrored-{}", if address.is_ipv4() { "abc12" } else { "def34" });
            let mut object = slice("default", &name, "mirrored")
                .label("endpointslice.kubernetes.io/managed-by", "endpointslicemirroring-controller.k8s.io")
                .port("tcp", "TCP", TARGET)
                .port("udp", "UDP", TARGET)
                .endpoint(xtask::lab::objects::endpoint(address))
                .build();
            object["endpoints"][0]["conditions"] = json!({ "ready": ready });
            object
        });
        world.apply(&slices);
        slices
    };
    mirrored("web-1", true);
    until_served_by(&client, &web, &["web-1"]);
    let slices = mirrored("web-2", true);
    until_served_by(&client, &web, &["web-2"]);
    // notReadyAddresses of the Endpoints object.
    mirrored("web-2", false);
    until_refused(&client, Via::Tcp, web.v4);
    mirrored("web-1", true);
    until_served_by(&client, &web, &["web-1"]);
    slices.iter().for_each(|slice| world.delete(slice));
    for to in web.both() {
        until_refused(&client, Via::Tcp, to);
    }
}
