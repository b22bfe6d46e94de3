//! Services that come, change and go.

use std::{net::IpAddr, time::Duration};

use serde_json::{Value, json};
use xtask::lab::{
    Place, UdpSession, Via, ask, ask_within, available,
    objects::{ServiceBuilder, service, slice},
};

use crate::{
    fixture::{Member, TARGET, Web, serve, until_exactly, until_served_by},
    world::{From, SOURCES, TRY, World, cluster_ips, eventually, until_answered_by, until_refused},
};

/// One node with a client and two endpoints that serve.
pub(super) const ONE_NODE: &[(&str, &[&str])] = &[("node-a", &["client", "web-1", "web-2"])];

/// Waits until the address is nobody's: nothing answers, and nothing is refused on behalf of a Service.
pub(super) fn until_left_alone(place: &Place, web: &Web) {
    for to in web.both() {
        eventually(&format!("{to} left alone"), || {
            let unknown_port = (to.ip(), 9).into();
            let session = place.run(|| UdpSession::connect(unknown_port, TRY)).map_err(|f| f.to_string())?;
            // Where a program cannot refuse, it would have sent the socket elsewhere.
            let peer = session.socket().peer_addr().expect("a connected socket");
            let outcome = place.run(|| ask_within(Via::Udp, to, Duration::from_millis(100)));
            match outcome {
                Err(failure) if peer == unknown_port && !failure.refused() => Ok(()),
                other => Err(format!("a socket to {peer}, and {other:?}")),
            }
        });
    }
}

#[test]
fn row_002_multiport_endpoints() {
    if !available() {
        return;
    }
    let world = World::new("row-002", From::Api, ONE_NODE);
    let (v4, v6) = cluster_ips();
    let pods = [world.pod("web-1"), world.pod("web-2")];
    let _servers = [pods[0].serve(100).unwrap(), pods[1].serve(101).unwrap()];
    world.apply(&[
        service("default", "multi")
            .cluster_ip(v4)
            .cluster_ip(v6)
            .port("one", "TCP", 80, 100)
            .port("two", "TCP", 81, 101)
            .build(),
        slice("default", "multi-1", "multi").port("one", "TCP", 100).endpoint(pods[0].endpoint4()).build(),
        slice("default", "multi-2", "multi").port("two", "TCP", 101).endpoint(pods[1].endpoint4()).build(),
        slice("default", "multi-3", "multi").port("one", "TCP", 100).endpoint(pods[0].endpoint6()).build(),
        slice("default", "multi-4", "multi").port("two", "TCP", 101).endpoint(pods[1].endpoint6()).build(),
    ]);
    let client = world.pod("client");
    for ip in [IpAddr::from(v4), v6.into()] {
        until_exactly(&client, Via::Tcp, (ip, 80).into(), &["web-1"]);
        until_exactly(&client, Via::Tcp, (ip, 81).into(), &["web-2"]);
    }
    // One pod goes: its port has no endpoint, and the other goes on.
    world.delete(&slice("default", "multi-1", "multi").build());
    until_refused(&client, Via::Tcp, (v4, 80).into());
    until_exactly(&client, Via::Tcp, (v4, 81).into(), &["web-2"]);
}

#[test]
fn row_003_ports_are_added_and_deleted() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-003", from, ONE_NODE);
        let _servers = serve(&world, &["web-1"]);
        let web = Web::new("web");
        let member = [Member::pod(&world.pod("web-1"))];
        let ports = |ports: &[(&str, u16)]| {
            let add = |service: ServiceBuilder, (name, port): &(&str, u16)| {
                service.port(name, "TCP", *port, TARGET)
            };
            let service = ports.iter().fold(web.bare(), add).build();
            let slices = web.slices_with(&member, |slice| {
                ports.iter().fold(slice, |slice, (name, _)| slice.port(name, "TCP", TARGET))
            });
            world.apply(&[vec![service], slices].concat());
        };
        let client = world.pod("client");
        let expect = |answering: &[u16], refusing: &[u16]| {
            for ip in web.both().map(|to| to.ip()) {
                for port in answering {
                    until_answered_by(&client, Via::Tcp, (ip, *port).into(), "web-1");
                }
                for port in refusing {
                    until_refused(&client, Via::Tcp, (ip, *port).into());
                }
            }
        };
        ports(&[("one", 80)]);
        expect(&[80], &[81, 82]);
        ports(&[("one", 80), ("two", 81)]);
        expect(&[80, 81], &[82]);
        ports(&[("two", 81), ("three", 82)]);
        expect(&[81, 82], &[80]);
        // The number of a port changes, and the name of another.
        ports(&[("two", 80), ("four", 82)]);
        expect(&[80, 82], &[81]);
    }
}

#[test]
fn row_006_services_go_up_and_down() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-006", from, ONE_NODE);
        let _servers = serve(&world, &["web-1", "web-2"]);
        let pods = [world.pod("web-1"), world.pod("web-2")];
        let webs = ["up-1", "up-2", "up-3", "up-4"].map(Web::new);
        for web in &webs[..3] {
            world.apply(&web.of(&pods.each_ref()));
        }
        let client = world.pod("client");
        for web in &webs[..3] {
            until_served_by(&client, web, &["web-1", "web-2"]);
        }
        webs[0].of(&[]).iter().for_each(|object| world.delete(object));
        world.apply(&webs[3].of(&pods.each_ref()));
        until_left_alone(&client, &webs[0]);
        for web in &webs[1..] {
            until_served_by(&client, web, &["web-1", "web-2"]);
        }
    }
}

#[test]
fn row_007_a_service_is_created_again() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-007", from, ONE_NODE);
        let _servers = serve(&world, &["web-1"]);
        let pod = world.pod("web-1");
        let (first, second) = (Web::new("web"), Web::new("web"));
        let client = world.pod("client");
        world.apply(&first.of(&[&pod]));
        until_served_by(&client, &first, &["web-1"]);
        // Its slices may outlive it.
        world.delete(&first.service().build());
        until_left_alone(&client, &first);
        world.apply(&[second.service().build()]);
        until_served_by(&client, &second, &["web-1"]);
        until_left_alone(&client, &first);
        // The same address again, and another without a gap between.
        world.apply(&[first.service().build()]);
        until_served_by(&client, &first, &["web-1"]);
        until_left_alone(&client, &second);
    }
}

/// TCP and UDP on one port number: each can go and come without the other.
fn protocols_on_one_port(name: &str, from: From, change: impl Fn(ServiceBuilder) -> ServiceBuilder) {
    let world = World::new(name, from, ONE_NODE);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let web = Web::new("web");
    let client = world.pod("client");
    world.apply(&web.of(&[&world.pod("web-1"), &world.pod("web-2")]));
    let tcp = |service: ServiceBuilder| service.port("tcp", "TCP", 80, TARGET);
    let udp = |service: ServiceBuilder| service.port("udp", "UDP", 80, TARGET);
    let apply = |service: ServiceBuilder| {
        let mut object = change(service).build();
        if object["spec"]["type"] == "LoadBalancer" {
            object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.9" }] } });
        }
        world.apply(&[object]);
    };
    for _round in 0..2 {
        apply(udp(tcp(web.bare())));
        until_served_by(&client, &web, &["web-1", "web-2"]);
        apply(tcp(web.bare()));
        for to in web.both() {
            until_refused(&client, Via::Udp, to);
            until_exactly(&client, Via::Tcp, to, &["web-1", "web-2"]);
        }
        apply(udp(web.bare()));
        for to in web.both() {
            until_refused(&client, Via::Tcp, to);
            until_exactly(&client, Via::Udp, to, &["web-1", "web-2"]);
        }
    }
}

#[test]
fn row_045_one_port_two_protocols() {
    if !available() {
        return;
    }
    for from in SOURCES {
        protocols_on_one_port("row-045", from, |service| service);
    }
}

#[test]
fn row_046_one_port_two_protocols_of_a_load_balancer() {
    if !available() {
        return;
    }
    protocols_on_one_port("row-046", From::Api, |service| service.kind("LoadBalancer"));
}

#[test]
fn row_047_sctp_is_planned_without_its_kernel_module() {
    if !available() {
        return;
    }
    let loaded = || std::fs::read_to_string("/proc/modules").is_ok_and(|list| list.contains("sctp"));
    let before = loaded();
    let world = World::new("row-047", From::Manifests, ONE_NODE);
    let _servers = serve(&world, &["web-1"]);
    let web = Web::new("web");
    let members = [Member::pod(&world.pod("web-1"))];
    world.apply(&[web.service().port("sctp", "SCTP", 80, TARGET).build()]);
    world.apply(&web.slices_with(&members, |slice| {
        slice.port("sctp", "SCTP", TARGET).port("tcp", "TCP", TARGET).port("udp", "UDP", TARGET)
    }));
    // What else the Service has is served.
    until_served_by(&world.pod("client"), &web, &["web-1"]);
    let folder = world.manifests().path().to_str().expect("a path in UTF-8").to_owned();
    let plan = ["plan", "--manifests", &folder, "--node-name", "node-a", "-o", "json"];
    let plan = world.agent_spec("node-a").cli(&plan).unwrap();
    assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let sctp = |address: String| {
        plan["frontends"].as_array().expect("frontends").iter().any(|frontend| {
            frontend["protocol"] == "SCTP"
                && frontend["address"] == json!(address)
                && frontend["port"] == 80
                && frontend["internal"][0]["port"] == TARGET
        })
    };
    for to in web.both() {
        assert!(sctp(to.ip().to_string()), "{plan:#}");
    }
    assert_eq!(loaded(), before, "the sctp module was loaded");
    // Nothing about it was a problem.
    for line in world.agent("node-a").log().all() {
        let level = line.field("level").and_then(Value::as_str).expect("a level");
        let trouble = matches!(level, "WARN" | "ERROR") && line.text.to_lowercase().contains("sctp");
        assert!(!trouble, "{line:?}");
    }
}

#[test]
fn row_051_one_name_for_different_target_ports() {
    if !available() {
        return;
    }
    let world = World::new("row-051", From::Api, ONE_NODE);
    let web = Web::new("web");
    let pods = [world.pod("web-1"), world.pod("web-2")];
    let _servers = [pods[0].serve(8100).unwrap(), pods[1].serve(8200).unwrap()];
    world.apply(&[web.bare().port("http", "TCP", 80, 1).build()]);
    for (n, (pod, port)) in pods.iter().zip([8100, 8200]).enumerate() {
        let name = |family| format!("web-{n}-{family}");
        world.apply(&[
            slice("default", &name(4), "web").port("http", "TCP", port).endpoint(pod.endpoint4()).build(),
            slice("default", &name(6), "web").port("http", "TCP", port).endpoint(pod.endpoint6()).build(),
        ]);
    }
    for to in web.both() {
        until_exactly(&world.pod("client"), Via::Tcp, to, &["web-1", "web-2"]);
    }
}

#[test]
fn row_071_two_services_of_the_same_pods() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-071", from, ONE_NODE);
        let _servers = serve(&world, &["web-1", "web-2"]);
        let pods = [world.pod("web-1"), world.pod("web-2")];
        let (one, other) = (Web::new("one"), Web::new("other"));
        let client = world.pod("client");
        for web in [&one, &other] {
            world.apply(&web.of(&pods.each_ref()));
            until_served_by(&client, web, &["web-1", "web-2"]);
        }
        one.of(&[]).iter().for_each(|object| world.delete(object));
        until_left_alone(&client, &one);
        until_served_by(&client, &other, &["web-1", "web-2"]);
        let to = other.v4;
        assert_eq!(client.run(|| ask(Via::Tcp, to)).unwrap().remote, to);
    }
}
