//! Which endpoints a client is sent to: internalTrafficPolicy, topology hints, and endpoints that are not
//! ready or terminating. KUBE-PROXY.md 1.7, 2.4 and 2.5, whose truth tables these follow.

use xtask::lab::{Place, Via, available, objects::EndpointBuilder};

use crate::{
    fixture::{Member, TARGET, Web, serve, until_served_by},
    world::{From, SOURCES, World, until_dropped, until_refused},
};

const EVERY_VIA: [Via; 3] = [Via::Tcp, Via::Udp, Via::UdpConnected];

/// A client and an endpoint on each of two nodes.
fn two_nodes(name: &str, from: From) -> World {
    World::new(name, from, &[("node-a", &["client-a", "web-a"]), ("node-b", &["client-b", "web-b"])])
}

fn until_all_dropped(place: &Place, web: &Web) {
    for via in EVERY_VIA {
        for to in web.both() {
            until_dropped(place, via, to);
        }
    }
}

fn until_all_refused(place: &Place, web: &Web) {
    for via in EVERY_VIA {
        for to in web.both() {
            until_refused(place, via, to);
        }
    }
}

#[test]
fn local_serves_the_endpoints_node_and_fails_fast_elsewhere() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = two_nodes("local", from);
        let _servers = serve(&world, &["web-a", "web-b"]);
        let web = Web::new("web");
        world.apply(&[web.service().internal_local().build()]);
        world.apply(&web.slices(&[Member::pod(&world.pod("web-a"))]));
        let (node_a, node_b) = (world.node("node-a"), world.node("node-b"));
        for place in [&*world.pod("client-a"), &*world.pod("web-a"), &*node_a] {
            until_served_by(place, &web, &["web-a"]);
        }
        for place in [&*world.pod("client-b"), &*world.pod("web-b"), &*node_b] {
            until_all_dropped(place, &web);
        }
        // The other node gets one of its own, and each keeps to its own.
        world.apply(&web.slices(&["web-a", "web-b"].map(|name| Member::pod(&world.pod(name)))));
        for place in [&*world.pod("client-b"), &*node_b] {
            until_served_by(place, &web, &["web-b"]);
        }
        until_served_by(&world.pod("client-a"), &web, &["web-a"]);
        // The policy of a live Service changes, there and back.
        world.apply(&[web.service().build()]);
        until_served_by(&world.pod("client-b"), &web, &["web-a", "web-b"]);
        world.apply(&[web.service().internal_local().build()]);
        until_served_by(&world.pod("client-b"), &web, &["web-b"]);
        // None left anywhere: refused, as by any Service.
        world.apply(&web.slices(&[]));
        until_all_refused(&world.pod("client-a"), &web);
        until_all_refused(&node_b, &web);
    }
}

#[test]
fn local_with_an_endpoint_in_the_hosts_network() {
    if !available() {
        return;
    }
    let world = two_nodes("local-host", From::Manifests);
    let (node_a, node_b) = (world.node("node-a"), world.node("node-b"));
    let _server = node_a.serve(TARGET).unwrap();
    let web = Web::new("web");
    world.apply(&[web.service().internal_local().build()]);
    world.apply(&web.slices(&[Member::new(&node_a, "node-a")]));
    for place in [&*world.pod("client-a"), &*node_a] {
        until_served_by(place, &web, &["node-a"]);
    }
    for place in [&*world.pod("client-b"), &*node_b] {
        until_all_dropped(place, &web);
    }
    world.apply(&[web.service().build()]);
    for place in [&*world.pod("client-b"), &*node_b] {
        until_served_by(place, &web, &["node-a"]);
    }
}

/// What an endpoint is, for the table of 2.4.
#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    /// Serving, but not ready; also with publishNotReadyAddresses not to be had.
    NotReady,
    ServingTerminating,
    Terminating,
    /// Terminating, of a Service with publishNotReadyAddresses.
    ReadyTerminating,
    Absent,
}

use State::{Absent, NotReady, Ready, ReadyTerminating, ServingTerminating, Terminating};

/// What a client meets.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    ServedBy(&'static [&'static str]),
    Dropped,
    Refused,
}

use Outcome::{Dropped, Refused, ServedBy};

impl State {
    fn of(self, endpoint: EndpointBuilder) -> Option<EndpointBuilder> {
        Some(match self {
            Ready => endpoint,
            NotReady => endpoint.conditions(false, false, false),
            ServingTerminating => endpoint.terminating(true),
            Terminating => endpoint.terminating(false),
            ReadyTerminating => endpoint.conditions(true, true, true),
            Absent => return None,
        })
    }
}

#[test]
fn terminating_endpoints_serve_when_no_other_does() {
    if !available() {
        return;
    }
    const BOTH: Outcome = ServedBy(&["web-a", "web-b"]);
    const A: Outcome = ServedBy(&["web-a"]);
    const B: Outcome = ServedBy(&["web-b"]);
    // web-a and web-b; what policy Cluster means for all clients; what Local means on node-a and node-b.
    let table = [
        (Ready, Ready, BOTH, A, B),
        (ServingTerminating, Ready, B, A, B),
        (Terminating, Ready, B, Dropped, B),
        (NotReady, Ready, B, Dropped, B),
        (Absent, Ready, B, Dropped, B),
        (ServingTerminating, ServingTerminating, BOTH, A, B),
        (Absent, ServingTerminating, B, Dropped, B),
        (Terminating, ServingTerminating, B, Dropped, B),
        (NotReady, ServingTerminating, B, Dropped, B),
        (Terminating, Terminating, Refused, Refused, Refused),
        (NotReady, Terminating, Refused, Refused, Refused),
        (ReadyTerminating, Ready, BOTH, A, B),
        (ReadyTerminating, ServingTerminating, A, A, B),
        (NotReady, NotReady, Refused, Refused, Refused),
    ];
    let world = two_nodes("terminating", From::Manifests);
    let _servers = serve(&world, &["web-a", "web-b"]);
    let (cluster, local) = (Web::new("cluster"), Web::new("local"));
    world.apply(&[cluster.service().build(), local.service().internal_local().build()]);
    let clients = [world.pod("client-a"), world.pod("client-b")];
    for row in table {
        eprintln!("{row:?}");
        let (a, b, in_cluster, on_a, on_b) = row;
        let members: Vec<Member> = [("web-a", a), ("web-b", b)]
            .into_iter()
            .filter(|(_, state)| !matches!(state, Absent))
            .map(|(name, state)| {
                let member = Member::pod(&world.pod(name));
                member.with(|endpoint| state.of(endpoint).expect("one that is there"))
            })
            .collect();
        world.apply(&[cluster.slices(&members), local.slices(&members)].concat());
        for (client, on_this) in clients.iter().zip([on_a, on_b]) {
            until(client, &cluster, in_cluster);
            until(client, &local, on_this);
        }
    }
}

fn until(client: &Place, web: &Web, outcome: Outcome) {
    match outcome {
        ServedBy(endpoints) => until_served_by(client, web, endpoints),
        Dropped => until_all_dropped(client, web),
        Refused => until_all_refused(client, web),
    }
}
