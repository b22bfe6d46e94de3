//! Agents that die, end, and come back under connections that go on.

use std::{net::SocketAddr, time::Duration};

use xtask::lab::{SctpSession, Stream, UdpSession, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{answer_of, check, probes},
    stage::Stage,
};
use crate::world::SOON;

/// Connections through node-a to an endpoint there and to one on the other node.
struct Connections {
    streams: Vec<Stream>,
    associations: Vec<SctpSession>,
    sockets: Vec<(UdpSession, SocketAddr, String)>,
}

impl Connections {
    fn open(stage: &Stage, services: &[(Exposed, &str)]) -> Self {
        let (node, client) = (stage.place("node-a"), &stage.outside);
        let mut all = Self { streams: Vec::new(), associations: Vec::new(), sockets: Vec::new() };
        for (exposed, endpoint) in services {
            for to in [exposed.node_port_of(&node), exposed.external()].concat() {
                all.streams.push(Stream::start(client, to, Duration::from_millis(2)));
                all.associations.push(client.run(|| SctpSession::connect(to, SOON)).expect("connected"));
                let socket = client.run(|| UdpSession::open(to, SOON)).expect("a socket");
                let peer = socket.ask_to(b"x", to).expect("an answer").peer;
                all.sockets.push((socket, to, format!("{endpoint} {peer}")));
            }
        }
        // SCTP of a pod goes the way of other links.
        let (exposed, _) = &services[1];
        let pod = stage.place("client-a");
        for to in exposed.cluster() {
            all.associations.push(pod.run(|| SctpSession::connect(to, SOON)).expect("connected"));
        }
        all
    }

    /// Each is used once more, and is as it was.
    fn go_on(&mut self, what: &str) {
        for stream in &self.streams {
            assert!(stream.wait_for_more(200_000, SOON), "{what}: a TCP connection");
        }
        for association in &mut self.associations {
            association.ask(what.as_bytes()).unwrap_or_else(|failure| panic!("{what}: SCTP: {failure}"));
        }
        for (socket, to, seen) in &self.sockets {
            let answer = socket.ask_to(b"x", *to).unwrap_or_else(|failure| panic!("{what}: UDP: {failure}"));
            assert_eq!(format!("{} {}", answer.endpoint, answer.peer), *seen, "{what}");
        }
    }

    fn end(self) {
        for stream in self.streams {
            assert_eq!(stream.stop().failure, None);
        }
        for association in self.associations {
            association.shutdown().expect("an end in order");
        }
    }
}

fn under_connections(name: &str, arguments: &[&str]) {
    let mut stage = Stage::with(name, |spec| spec.args(arguments));
    stage.prepare_for_xdp();
    let services = ["web-a", "web-b"].map(|endpoint| (Exposed::new(endpoint), endpoint));
    let (client, node) = (stage.outside.clone(), stage.place("node-a"));
    for (exposed, endpoint) in &services {
        stage.apply(&exposed.of(&[stage.member(endpoint)]));
    }
    let all_served = |stage: &Stage| {
        for (exposed, endpoint) in &services {
            let seen_as = if *endpoint == "web-a" { &client } else { &node };
            let tos = [exposed.node_port_of(&node), exposed.external()].concat();
            check(&probes(&client, &VIAS, &tos, answer_of(&stage.place(endpoint), seen_as)));
        }
    };
    all_served(&stage);
    let mut connections = Connections::open(&stage, &services);
    connections.go_on("before");
    for round in 0..2 {
        stage.world.take_agent("node-a").kill9().expect("a crash");
        connections.go_on("after a crash");
        all_served(&stage);
        stage.world.start_agent("node-a");
        connections.go_on("with a new agent");
        assert!(stage.world.take_agent("node-a").terminate().expect("an end").success());
        connections.go_on("after its end");
        all_served(&stage);
        stage.world.start_agent("node-a");
        connections.go_on("with another agent");
        // What has changed while nobody looked, too.
        if round == 0 {
            let other = Exposed::new("other");
            stage.apply(&other.of(&[stage.member("web-b")]));
            let tos = other.node_port_of(&node);
            check(&probes(&client, &VIAS, &tos, answer_of(&stage.place("web-b"), &node)));
        }
    }
    all_served(&stage);
    connections.end();
}

#[test]
fn nothing_is_reset_when_the_agent_dies_or_is_replaced() {
    if !available() {
        return;
    }
    under_connections("restarts", &[]);
}

#[test]
fn nor_with_xdp() {
    if !available() {
        return;
    }
    under_connections("restarts-xdp", &["--xdp", "native"]);
}

#[test]
fn nor_with_clsact() {
    if !available() {
        return;
    }
    under_connections("restarts-clsact", &["--xdp", "off", "--tc", "clsact"]);
}
