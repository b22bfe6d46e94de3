//! External IPs and load balancers.

use std::time::Duration;

use serde_json::json;
use xtask::lab::{
    Load, LoadSpec, Place, UdpSession, Via, available,
    objects::{EndpointBuilder, ServiceBuilder},
};

use crate::{
    fixture::{Member, TARGET, Web},
    health_check_ports::{PORT as HEALTH_CHECK_PORT, until_gone, until_told},
    packet::{
        exposed::{Exposed, VIAS},
        policies::until_spread,
        probe::{Meets, answer_of, check, probes},
        stage::Stage,
        udp::until_answered,
    },
    world::{From, SOON, SOURCES, eventually},
};

const SOCKETS: [Via; 2] = [Via::Tcp, Via::Udp];

#[test]
fn row_011_an_external_ip_that_no_node_has() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("row-011", from);
        let web = Web::new("web");
        let ips = ["203.0.113.250", "2001:db8:113::250"].map(|ip| ip.parse().expect("an address"));
        let tos = ips.map(|ip: std::net::IpAddr| (ip, 80).into());
        stage.apply(&[ips.into_iter().fold(web.service(), ServiceBuilder::external_ip).build()]);
        stage.apply(&web.slices(&["web-a", "web-b"].map(|name| stage.member(name))));
        for client in ["client-a", "client-b", "node-a", "node-b"].map(|name| stage.place(name)) {
            for via in SOCKETS {
                tos.iter().for_each(|to| until_spread(&client, via, *to, 2));
            }
        }
        for via in SOCKETS {
            tos.iter().for_each(|to| until_spread(&stage.outside, via, *to, 2));
        }
    }
}

#[test]
fn row_098_types_and_ports_change() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-098", From::Api);
    let exposed = Exposed::new("web");
    let (client, node, web) = (&stage.outside, stage.place("node-a"), stage.place("web-b"));
    let [v4, v6] = exposed.balancer();
    let service = |kind: &str, node_port: Option<u16>, balancer: bool, port: u16| {
        let mut service = exposed.web.bare().kind(kind);
        for (name, protocol) in [("tcp", "TCP"), ("udp", "UDP")] {
            service = service.port(name, protocol, port, TARGET);
            service = node_port.map_or(service.clone(), |number| service.node_port(number));
        }
        if balancer {
            service = service.balancer_ip(v4.ip()).balancer_ip(v6.ip());
        }
        service.build()
    };
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    let at = |port: u16| node.addresses().both().map(|ip| (ip, port).into());
    let balancer = |port: u16| [v4, v6].map(|to| (to.ip(), port).into());
    let served = |tos: &[_]| probes(client, &SOCKETS, tos, answer_of(&web, &node));
    let gone = |tos: &[std::net::SocketAddr]| {
        for to in tos {
            for via in SOCKETS {
                eventually(&format!("nobody at {to}"), || {
                    match client.run(|| xtask::lab::ask_within(via, *to, Duration::from_millis(100))) {
                        Ok(answer) => Err(format!("{} answered", answer.endpoint)),
                        Err(_) => Ok(()),
                    }
                });
            }
        }
    };
    let (first, second) = (exposed.node_port, exposed.node_port + 1000);
    stage.apply(&[service("ClusterIP", None, false, 80)]);
    check(&probes(
        &stage.place("client-a"),
        &SOCKETS,
        &exposed.cluster(),
        answer_of(&web, &stage.place("client-a")),
    ));
    gone(&[at(first), balancer(80)].concat());
    stage.apply(&[service("NodePort", Some(first), false, 80)]);
    check(&served(&at(first)));
    // Its load balancer comes later than its type.
    stage.apply(&[service("LoadBalancer", Some(first), false, 80)]);
    stage.apply(&[service("LoadBalancer", Some(first), true, 80)]);
    check(&served(&[at(first), balancer(80)].concat()));
    // Another node port; another port; back to where it came from.
    stage.apply(&[service("LoadBalancer", Some(second), true, 80)]);
    check(&served(&[at(second), balancer(80)].concat()));
    gone(&at(first));
    stage.apply(&[service("LoadBalancer", Some(second), true, 81)]);
    check(&served(&[at(second), balancer(81)].concat()));
    gone(&balancer(80));
    // Without endpoints it refuses, and serves again.
    stage.apply(&exposed.slices(&[]));
    check(&probes(client, &SOCKETS, &[at(second), balancer(81)].concat(), |_| Meets::Refused));
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    check(&served(&[at(second), balancer(81)].concat()));
    stage.apply(&[service("ClusterIP", None, false, 80)]);
    gone(&[at(second), balancer(81), balancer(80)].concat());
}

#[test]
fn row_100_to_103_affinity_of_load_balancers() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-100", From::Api);
    let late = stage.world.lab().add_pod(&stage.node("node-a"), "more-a").expect("another pod");
    let _servers =
        (late.serve(TARGET).expect("a server"), late.serve_sctp(TARGET).expect("a server of SCTP"));
    let client = &stage.outside;
    for local in [false, true] {
        let exposed = Exposed::new(if local { "local" } else { "cluster" });
        let service = || {
            let service = exposed.service();
            if local { service.external_local() } else { service }
        };
        stage.apply(&exposed.slices(&["web-a", "web-b", "more-a"].map(|name| stage.member(name))));
        // Under policy Local only those of the node that the balancer chose.
        let all = if local { 2 } else { 3 };
        // Fixed from the start, then switched.
        stage.apply(&[service().affinity(600).build()]);
        for to in exposed.balancer() {
            VIAS.iter().for_each(|via| until_spread(client, *via, to, 1));
        }
        for _round in 0..2 {
            stage.apply(&[service().build()]);
            for to in exposed.balancer() {
                VIAS.iter().for_each(|via| until_spread(client, *via, to, all));
            }
            stage.apply(&[service().affinity(600).build()]);
            for to in exposed.balancer() {
                VIAS.iter().for_each(|via| until_spread(client, *via, to, 1));
            }
        }
    }
}

#[test]
fn row_104_a_load_balancer_without_node_ports() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-104", From::Api);
    let exposed = Exposed::new("web");
    let (client, node, web) = (&stage.outside, stage.place("node-a"), stage.place("web-b"));
    let [v4, v6] = exposed.balancer();
    let without = exposed.web.service().kind("LoadBalancer").balancer_ip(v4.ip()).balancer_ip(v6.ip());
    let without = without.spec("allocateLoadBalancerNodePorts", json!(false)).build();
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    for _round in 0..2 {
        stage.apply(std::slice::from_ref(&without));
        check(&probes(client, &SOCKETS, &[v4, v6], answer_of(&web, &node)));
        stage.apply(&[exposed.service().build()]);
        let tos = [exposed.node_port_of(&node).to_vec(), vec![v4, v6]].concat();
        check(&probes(client, &VIAS, &tos, answer_of(&web, &node)));
    }
}

#[test]
fn row_105_106_udp_through_a_load_balancer_while_its_pod_is_replaced() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-105", From::Api);
    let late = stage.world.lab().add_pod(&stage.node("node-a"), "more-a").expect("another pod");
    let _server = late.serve(TARGET).expect("a server");
    let exposed = Exposed::new("web");
    let client = &stage.outside;
    stage.apply(&exposed.of(&[stage.member("web-a")]));
    let open = |to| client.run(|| UdpSession::open(to, Duration::from_millis(500))).expect("a socket");
    let sessions = exposed.balancer().map(|to| (open(to), to));
    // To another node, back, and to another pod of the same node.
    for next in ["web-a", "web-b", "web-a", "more-a", "web-b"] {
        stage.apply(&exposed.slices(&[]));
        check(&probes(client, &[Via::Udp], &exposed.balancer(), |_| Meets::Refused));
        stage.apply(&exposed.slices(&[stage.member(next)]));
        for (session, to) in &sessions {
            until_answered(session, *to, next);
        }
    }
}

/// A pod after the other is replaced while requests come in; none of them may fail.
fn rolling_update(name: &str, change: fn(ServiceBuilder) -> ServiceBuilder) {
    let stage = Stage::following(name, From::Api);
    let pods: Vec<Place> = ["more-a", "last-a"]
        .map(|name| (*stage.world.lab().add_pod(&stage.node("node-a"), name).expect("another pod")).clone())
        .into();
    let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(TARGET).expect("a server")).collect();
    let exposed = Exposed::new("web");
    stage.apply(&[change(exposed.service()).build()]);
    let ready = |name: &str| stage.member(name);
    let leaving =
        |name: &str| stage.member(name).with(|endpoint: EndpointBuilder| endpoint.terminating(true));
    let apply = |members: &[Member]| stage.apply(&exposed.slices(members));
    apply(&[ready("web-a"), ready("more-a")]);
    let [v4, v6] = exposed.balancer();
    until_spread(&stage.outside, Via::Tcp, v4, 2);
    until_spread(&stage.outside, Via::Udp, v6, 2);
    let loads = [(Via::Tcp, v4), (Via::Tcp, v6), (Via::Udp, v4)]
        .map(|(via, to)| Load::start(&stage.outside, LoadSpec::new(via, to)));
    let meanwhile = || {
        for load in &loads {
            assert!(load.wait_for_more(15, SOON));
        }
    };
    let order = ["web-a", "more-a", "last-a"];
    for step in 0..6 {
        let [old, kept, new] = [0, 1, 2].map(|n| order[(step + n) % 3]);
        for members in [
            &[ready(old), ready(kept), ready(new)][..],
            &[leaving(old), ready(kept), ready(new)],
            &[ready(kept), ready(new)],
        ] {
            apply(members);
            meanwhile();
        }
    }
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failed, 0, "{:?}", report.failures);
        assert_eq!(report.by_endpoint.len(), 3, "{:?}", report.by_endpoint);
    }
}

#[test]
fn row_107_108_no_request_fails_in_a_rolling_update() {
    if !available() {
        return;
    }
    rolling_update("row-107", |service| service);
    rolling_update("row-108", ServiceBuilder::external_local);
}

#[test]
fn row_109_to_112_external_policy_local_behind_a_load_balancer() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-109", From::Api);
    let exposed = Exposed::new("web");
    let (a, b) = (stage.node("node-a"), stage.node("node-b"));
    let client = &stage.outside;
    let at = exposed.balancer();
    stage.apply(&[exposed.service().health_check_port(HEALTH_CHECK_PORT).build()]);
    // The balancer sends to one node or the other; only a node with an endpoint answers.
    let send_to = |node: &xtask::lab::Node| {
        for to in at {
            let bits = if to.is_ipv4() { 32 } else { 128 };
            stage.world.lab().route_to(node, (to.ip(), bits)).expect("a route");
        }
    };
    for endpoint in ["web-a", "web-b"] {
        stage.apply(&exposed.slices(&[stage.member(endpoint)]));
        let web = stage.place(endpoint);
        for node in [&a, &b] {
            send_to(node);
            let here = stage.node_of(endpoint) == node.name();
            // The balancer asks who has one.
            until_told(client, node, HEALTH_CHECK_PORT, u64::from(here));
            let answer = answer_of(&web, client);
            // The server sees the client's address.
            check(&probes(client, &VIAS, &at, |to| if here { answer(to) } else { Meets::Silence }));
        }
        // Pods of either node reach it, and are seen as what they are.
        for pod in ["client-a", "client-b"].map(|name| stage.place(name)) {
            check(&probes(&pod, &VIAS, &at, answer_of(&web, &pod)));
        }
    }
    // On both nodes.
    stage.apply(&exposed.slices(&["web-a", "web-b"].map(|name| stage.member(name))));
    for (node, endpoint) in [(&a, "web-a"), (&b, "web-b")] {
        send_to(node);
        until_told(client, node, HEALTH_CHECK_PORT, 1);
        check(&probes(client, &VIAS, &at, answer_of(&stage.place(endpoint), client)));
    }
    // Under policy Cluster every node answers, for every endpoint.
    stage.apply(&[exposed.service().build()]);
    for node in [&a, &b] {
        until_gone(client, node, HEALTH_CHECK_PORT);
        send_to(node);
        VIAS.iter().for_each(|via| until_spread(client, *via, at[0], 2));
    }
    // The Service takes the port with it.
    stage.apply(&[exposed.service().health_check_port(HEALTH_CHECK_PORT).build()]);
    until_told(client, &a, HEALTH_CHECK_PORT, 1);
    stage.world.delete(&exposed.service().build());
    until_gone(client, &a, HEALTH_CHECK_PORT);
    for to in at {
        eventually("it is gone", || {
            match client.run(|| xtask::lab::ask_within(Via::Tcp, to, Duration::from_millis(100))) {
                Ok(answer) => Err(format!("{} answered", answer.endpoint)),
                Err(_) => Ok(()),
            }
        });
    }
}
