//! Node ports, from pods, hosts and outside.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use xtask::lab::{
    Place, Via, ask_within, available,
    objects::{EndpointBuilder, ServiceBuilder},
};

use crate::{
    fixture::{Member, TARGET, Web, until_exactly},
    health_check_ports::{PORT as HEALTH_CHECK_PORT, until_gone, until_told},
    packet::{
        exposed::{Exposed, VIAS},
        policies::{ENOUGH, until_spread},
        probe::{Meets, Probe, answer_of, check, probes},
        stage::Stage,
    },
    world::{From, SOURCES, TRY, World, eventually},
};

const SOCKETS: [Via; 2] = [Via::Tcp, Via::Udp];

/// The node port of a Service that has no other frontends than that and its cluster IPs.
const NODE_PORT: u16 = 30_500;

/// The node port on every node, in both families.
fn everywhere(stage: &Stage, port: u16) -> Vec<SocketAddr> {
    let nodes = ["node-a", "node-b"].map(|name| stage.place(name));
    nodes.iter().flat_map(|node| node.addresses().both()).map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Pods, hosts and the client outside.
fn clients(stage: &Stage) -> Vec<Place> {
    let mut all: Vec<Place> =
        ["client-a", "client-b", "node-a", "node-b"].map(|name| stage.place(name)).into();
    all.push(stage.outside.clone());
    all
}

/// TCP and UDP with the same node port.
fn node_port(web: &Web) -> ServiceBuilder {
    web.bare()
        .kind("NodePort")
        .port("tcp", "TCP", 80, TARGET)
        .node_port(NODE_PORT)
        .port("udp", "UDP", 80, TARGET)
        .node_port(NODE_PORT)
}

/// Waits until nobody answers.
fn until_left_alone(places: &[Place], vias: &[Via], tos: &[SocketAddr]) {
    for place in places {
        for via in vias {
            for to in tos {
                eventually(&format!("no answer at {to} for {}", place.name()), || {
                    match place.run(|| ask_within(*via, *to, TRY / 5)) {
                        Ok(answer) => Err(format!("{} answered", answer.endpoint)),
                        Err(_) => Ok(()),
                    }
                });
            }
        }
    }
}

/// Every client is answered by one endpoint, whatever its address seems to be.
fn served_by(stage: &Stage, places: &[Place], vias: &[Via], tos: &[SocketAddr], endpoint: &str) {
    let all: Vec<Probe> = places
        .iter()
        .flat_map(|place| {
            tos.iter().flat_map(move |to| {
                let meets = move |_| seen(stage, place, *to, endpoint);
                probes(place, vias, &[*to], meets)
            })
        })
        .collect();
    check(&all);
}

/// What an endpoint sees of a client that asks at a node: its address, unless the endpoint is on another node
/// than the one that is asked, which is not the client's own.
fn seen(stage: &Stage, client: &Place, to: SocketAddr, endpoint: &str) -> Meets {
    let entry =
        ["node-a", "node-b"].into_iter().find(|name| stage.place(name).addresses().both().contains(&to.ip()));
    let entry = entry.expect("an address of a node");
    let inside = client.name() != "outside" && stage.node_of(client.name()) == entry;
    let kept = inside || stage.node_of(endpoint) == entry;
    let seen_as = if kept { client.clone() } else { stage.place(entry) };
    answer_of(&stage.place(endpoint), &seen_as)(to.ip())
}

#[test]
fn row_010_node_port() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("row-010", from);
        let web = Web::new("web");
        let tos = everywhere(&stage, NODE_PORT);
        for endpoint in ["web-a", "web-b"] {
            stage.apply(&[node_port(&web).build()]);
            stage.apply(&web.slices(&[stage.member(endpoint)]));
            served_by(&stage, &clients(&stage), &SOCKETS, &tos, endpoint);
        }
    }
}

#[test]
fn row_012_one_node_port_for_tcp_and_udp() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-012", From::Api);
    let web = Web::new("web");
    let (tos, clients) = (everywhere(&stage, NODE_PORT), clients(&stage));
    let tcp = |service: ServiceBuilder| service.port("tcp", "TCP", 80, TARGET).node_port(NODE_PORT);
    stage.apply(&[web.bare().port("tcp", "TCP", 80, TARGET).build()]);
    stage.apply(&web.slices(&[stage.member("web-b")]));
    until_exactly(&stage.place("client-a"), Via::Tcp, web.v4, &["web-b"]);
    until_left_alone(&clients, &SOCKETS, &tos);
    stage.apply(&[tcp(web.bare().kind("NodePort")).build()]);
    served_by(&stage, &clients, &SOCKETS[..1], &tos, "web-b");
    until_left_alone(&clients, &SOCKETS[1..], &tos);
    for _round in 0..2 {
        stage.apply(&[node_port(&web).build()]);
        served_by(&stage, &clients, &SOCKETS, &tos, "web-b");
        stage.apply(&[tcp(web.bare().kind("NodePort")).build()]);
        until_left_alone(&clients, &SOCKETS[1..], &tos);
        served_by(&stage, &clients, &SOCKETS[..1], &tos, "web-b");
    }
}

#[test]
fn row_014_016_external_name_to_node_port_and_back() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("row-014", from);
        let web = Web::new("web");
        let (tos, clients) = (everywhere(&stage, NODE_PORT), clients(&stage));
        // What it had as the other type may still be there.
        let name = || node_port(&web).kind("ExternalName").spec("externalName", json!("example.org")).build();
        stage.apply(&[name()]);
        stage.apply(&web.slices(&[stage.member("web-a")]));
        for _round in 0..2 {
            until_left_alone(&clients[2..], &SOCKETS, &tos);
            stage.apply(&[node_port(&web).build()]);
            served_by(&stage, &clients, &SOCKETS, &tos, "web-a");
            for via in SOCKETS {
                until_exactly(&stage.place("client-b"), via, web.v6, &["web-a"]);
            }
            stage.apply(&[name()]);
        }
        until_left_alone(&clients, &SOCKETS, &tos);
    }
}

#[test]
fn row_020_021_022_node_ports_of_pods_that_are_not_ready() {
    if !available() {
        return;
    }
    let stage = Stage::new("row-020");
    let web = Web::new("web");
    let (tos, clients) = (everywhere(&stage, NODE_PORT), clients(&stage));
    stage.apply(&[node_port(&web).build()]);
    let apply = |change: fn(EndpointBuilder) -> EndpointBuilder| {
        stage.apply(&web.slices(&[stage.member("web-a").with(change)]));
    };
    let refused = || {
        let probe = |client: &Place| probes(client, &SOCKETS, &tos, |_| Meets::Refused);
        check(&clients.iter().flat_map(probe).collect::<Vec<_>>());
    };
    apply(|endpoint| endpoint.conditions(false, false, false));
    refused();
    // publishNotReadyAddresses makes them ready, in the slice, and they stay so while they terminate.
    apply(|endpoint| endpoint.conditions(true, true, false));
    served_by(&stage, &clients, &SOCKETS, &tos, "web-a");
    apply(|endpoint| endpoint.conditions(true, false, true));
    served_by(&stage, &clients, &SOCKETS, &tos, "web-a");
    apply(|endpoint| endpoint.conditions(false, false, true));
    refused();
}

#[test]
fn row_026_027_028_affinity_at_node_ports() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-026", From::Api);
    let exposed = Exposed::new("web");
    stage.apply(&exposed.of(&["web-a", "web-b"].map(|name| stage.member(name))));
    let node = stage.place("node-a");
    let clients = [stage.outside.clone(), stage.place("client-a"), node.clone()];
    let each = |spread: usize| {
        for client in &clients {
            for to in exposed.node_port_of(&node) {
                for via in VIAS {
                    // SCTP of a host to itself meets no program.
                    if !(via == Via::Sctp && client.name() == "node-a") {
                        until_spread(client, via, to, spread);
                    }
                }
            }
        }
    };
    each(2);
    stage.apply(&[exposed.service().affinity(600).build()]);
    each(1);
    stage.apply(&[exposed.service().build()]);
    each(2);
    // Short enough to end between requests: then each chooses anew.
    stage.apply(&[exposed.service().affinity(1).build()]);
    let client = &stage.outside;
    let to = exposed.node_port_of(&node)[0];
    until_spread(client, Via::Tcp, to, 1);
    let first = client.run(|| xtask::lab::ask(Via::Tcp, to)).expect("an answer").endpoint;
    let moved = (0..ENOUGH).any(|_| {
        std::thread::sleep(Duration::from_millis(1300));
        client.run(|| xtask::lab::ask(Via::Tcp, to)).expect("an answer").endpoint != first
    });
    assert!(moved, "it stays longer than for its timeout");
}

#[test]
fn row_036_041_local_policy_at_node_ports() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-036", From::Api);
    let exposed = Exposed::new("web");
    stage.apply(&[exposed.service().external_local().build()]);
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    let (a, b) = (stage.place("node-a"), stage.place("node-b"));
    // A host on another node reaches the endpoint's node, which sees the host's address.
    check(&probes(&a, &VIAS, &exposed.node_port_of(&b), answer_of(&stage.place("web-b"), &a)));
    // A pod that asks the node without an endpoint from another node fails.
    let pod = stage.place("client-b");
    check(&probes(&pod, &VIAS, &exposed.node_port_of(&a), |_| Meets::Silence));
}

#[test]
fn row_037_the_health_check_fails_while_all_endpoints_terminate() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("row-037", from);
        let exposed = Exposed::new("web");
        let (client, b, web) = (&stage.outside, stage.place("node-b"), stage.place("web-b"));
        stage.apply(&[exposed.service().health_check_port(HEALTH_CHECK_PORT).build()]);
        stage.apply(&exposed.slices(&[stage.member("web-b")]));
        until_told(client, &b, HEALTH_CHECK_PORT, 1);
        let leaving = |endpoint: EndpointBuilder| endpoint.terminating(true);
        stage.apply(&exposed.slices(&[stage.member("web-b").with(leaving)]));
        until_told(client, &b, HEALTH_CHECK_PORT, 0);
        check(&probes(client, &VIAS, &exposed.node_port_of(&b), answer_of(&web, client)));
    }
}

#[test]
fn row_040_041_terminating_endpoints_at_node_ports() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-040", From::Api);
    let (cluster, local) = (Exposed::new("cluster"), Exposed::new("local"));
    stage.apply(&[cluster.service().build(), local.service().external_local().build()]);
    let leaving = |endpoint: EndpointBuilder| endpoint.terminating(true);
    let members = [stage.member("web-b").with(leaving)];
    stage.apply(&[cluster.slices(&members), local.slices(&members)].concat());
    let (a, b, web) = (stage.place("node-a"), stage.place("node-b"), stage.place("web-b"));
    let client = &stage.outside;
    check(
        &[
            probes(client, &VIAS, &cluster.node_port_of(&a), answer_of(&web, &a)),
            probes(client, &VIAS, &cluster.node_port_of(&b), answer_of(&web, client)),
            probes(client, &VIAS, &local.node_port_of(&b), answer_of(&web, client)),
            probes(client, &VIAS, &local.node_port_of(&a), |_| Meets::Silence),
        ]
        .concat(),
    );
    // One that is ready ends the terminating one's service, but not on a node that has no other.
    let members = [stage.member("web-a"), stage.member("web-b").with(leaving)];
    stage.apply(&[cluster.slices(&members), local.slices(&members)].concat());
    let ready = stage.place("web-a");
    check(
        &[
            probes(client, &VIAS, &cluster.node_port_of(&a), answer_of(&ready, client)),
            probes(client, &VIAS, &cluster.node_port_of(&b), answer_of(&ready, &b)),
            probes(client, &VIAS, &local.node_port_of(&b), answer_of(&web, client)),
            probes(client, &VIAS, &local.node_port_of(&a), answer_of(&ready, client)),
        ]
        .concat(),
    );
}

#[test]
fn row_048_external_policy_changes_with_three_nodes() {
    if !available() {
        return;
    }
    let nodes: &[(&str, &[&str])] =
        &[("node-a", &["client-a", "web-a"]), ("node-b", &["web-b"]), ("node-c", &["client-c"])];
    let stage = Stage::on(World::new("row-048", From::Api, nodes));
    let exposed = Exposed::new("web");
    let [a, b, c] = ["node-a", "node-b", "node-c"].map(|name| stage.place(name));
    let web = stage.place("web-b");
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    for _round in 0..2 {
        stage.apply(&[exposed.service().health_check_port(HEALTH_CHECK_PORT).build()]);
        for (node, endpoints) in [(&a, 0), (&b, 1), (&c, 0)] {
            until_told(&a, node, HEALTH_CHECK_PORT, endpoints);
            until_told(&stage.outside, node, HEALTH_CHECK_PORT, endpoints);
        }
        check(
            &[
                probes(&a, &VIAS, &exposed.node_port_of(&b), answer_of(&web, &a)),
                // At home every endpoint is reached.
                probes(&a, &SOCKETS, &exposed.node_port_of(&a), answer_of(&web, &a)),
                probes(&a, &VIAS, &exposed.node_port_of(&c), |_| Meets::Silence),
            ]
            .concat(),
        );
        stage.apply(&[exposed.service().build()]);
        [&a, &b, &c].into_iter().for_each(|node| until_gone(&a, node, HEALTH_CHECK_PORT));
        check(
            &[
                probes(&a, &VIAS, &exposed.node_port_of(&b), answer_of(&web, &a)),
                probes(&a, &SOCKETS, &exposed.node_port_of(&a), answer_of(&web, &a)),
                probes(&a, &VIAS, &exposed.node_port_of(&c), answer_of(&web, &c)),
            ]
            .concat(),
        );
    }
}

#[test]
fn row_062_to_070_086_to_097_every_client_reaches_every_endpoint_at_node_ports_and_by_sctp() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("row-062b", from);
        let exposed = Exposed::new("web");
        stage.apply(&exposed.of(&["web-a", "web-b"].map(|name| stage.member(name))));
        // pod-Service, node-Service, endpoint-Service: the endpoints are among those that they reach.
        for client in ["client-a", "web-a", "web-b", "node-a"].map(|name| stage.place(name)) {
            for to in everywhere(&stage, exposed.node_port).into_iter().chain(exposed.cluster()) {
                for via in VIAS {
                    let own = client.addresses().both().contains(&to.ip());
                    if via == Via::Sctp && own {
                        continue;
                    }
                    until_spread(&client, via, to, 2);
                }
            }
        }
    }
}

#[test]
fn row_074_075_076_a_node_port_that_is_deleted_is_served_no_more() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("row-074", from);
        let web = Web::new("web");
        let (tos, clients) = (everywhere(&stage, NODE_PORT), clients(&stage));
        stage.apply(&web.slices(&[stage.member("web-a")]));
        // Node ports of a Service that stays, and those of one that goes.
        stage.apply(&[node_port(&web).build()]);
        served_by(&stage, &clients, &SOCKETS, &tos, "web-a");
        stage.apply(&[web.service().build()]);
        until_left_alone(&clients, &SOCKETS, &tos);
        until_exactly(&clients[0], Via::Tcp, web.v4, &["web-a"]);
        stage.apply(&[node_port(&web).build()]);
        served_by(&stage, &clients, &SOCKETS, &tos, "web-a");
        stage.world.delete(&web.service().build());
        until_left_alone(&clients, &SOCKETS, &tos);
    }
}

#[test]
fn row_118_node_port_of_a_service_outside_of_the_first_cidr() {
    if !available() {
        return;
    }
    let stage = Stage::following("row-118b", From::Api);
    let new = ("198.18.7.9".parse().expect("an address"), "fd00:198:18::9".parse().expect("an address"));
    let web = Web::at("web", new);
    stage.apply(&[node_port(&web).build()]);
    stage.apply(&web.slices(&[Member::pod(&stage.world.pod("web-b"))]));
    served_by(&stage, &clients(&stage), &SOCKETS, &everywhere(&stage, NODE_PORT), "web-b");
    until_exactly(&stage.place("client-a"), Via::Tcp, web.v4, &["web-b"]);
}
