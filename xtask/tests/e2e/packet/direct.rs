//! A client that reaches one endpoint through a Service and by its own address, both from one port: the endpoint's
//! answers to the two would look the same.

use std::net::SocketAddr;

use xtask::lab::{Answer, TcpSession, UdpSession, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{answer_of, check, probes},
    stage::Stage,
    udp::outward,
};
use crate::{fixture::TARGET, world::SOON};

/// So often each connection is used while the other is there.
const ROUNDS: usize = 3;

/// With agents that are started so.
fn both_ways(name: &str, arguments: &[&str]) {
    let mut stage = Stage::with(name, |spec| spec.args(arguments));
    stage.prepare_for_xdp();
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let mut port = 7000;
    for endpoint in ["web-a", "node-a"] {
        let place = stage.place(endpoint);
        stage.apply(&exposed.of(&[stage.member(endpoint)]));
        let tos = outward(&exposed, &node);
        check(&probes(client, &VIAS, &tos, answer_of(&place, client)));
        for to in tos {
            let direct = SocketAddr::new(place.addresses().like(to.ip()), TARGET);
            for order in [[to, direct], [direct, to]] {
                port += 1;
                let answers = client.run(|| tcp(port, order));
                tell_apart(endpoint, order, &answers);
                let answers = client.run(|| udp(port, order));
                tell_apart(endpoint, order, &answers);
            }
        }
    }
}

/// Answers on two TCP connections from one port, in turn.
fn tcp(port: u16, order: [SocketAddr; 2]) -> Vec<[Answer; 2]> {
    let mut sessions = Vec::new();
    for to in order {
        let session = TcpSession::connect_from(port, to, SOON);
        sessions.push(session.unwrap_or_else(|failure| panic!("{port} to {to} of {order:?}: {failure}")));
        // What is there already has to go on.
        let [first, ..] = &mut sessions[..] else { unreachable!("one was just put in") };
        first.ask(b"still there?").unwrap_or_else(|failure| panic!("{order:?}: {failure}"));
    }
    let mut ask = |at: usize| {
        let answer = sessions[at].ask(b"who are you?");
        answer.unwrap_or_else(|failure| panic!("{port} to {} of {order:?}: {failure}", order[at]))
    };
    (0..ROUNDS).map(|_| [ask(0), ask(1)]).collect()
}

/// Answers to one UDP socket that asks both in turn.
fn udp(port: u16, order: [SocketAddr; 2]) -> Vec<[Answer; 2]> {
    let session = UdpSession::open_at(port, order[0], SOON).expect("a socket");
    let ask = |to| {
        let answer = session.ask_to(b"who are you?", to);
        answer.unwrap_or_else(|failure| panic!("{port} to {to} of {order:?}: {failure}"))
    };
    // The first datagram of the second pair may move the first to another port.
    let _before = order.map(ask);
    (0..ROUNDS).map(|_| order.map(ask)).collect()
}

/// Every answer is from where it was asked for, and the endpoint takes the two for two.
fn tell_apart(endpoint: &str, order: [SocketAddr; 2], answers: &[[Answer; 2]]) {
    for answers in answers {
        assert_eq!(answers.each_ref().map(|answer| answer.remote), order);
        assert!(answers.iter().all(|answer| answer.endpoint == endpoint), "{answers:?}");
        let [one, other] = answers.each_ref().map(|answer| answer.peer);
        assert!(
            one != other && one.ip() == other.ip(),
            "to the endpoint {one} and {other} ask, for {order:?}"
        );
    }
}

#[test]
fn a_service_and_its_endpoint_from_one_port() {
    if !available() {
        return;
    }
    both_ways("direct", &["--xdp", "off"]);
}

#[test]
fn a_service_and_its_endpoint_from_one_port_with_xdp() {
    if !available() {
        return;
    }
    both_ways("direct-xdp", &["--xdp", "native"]);
}

#[test]
fn a_service_and_its_endpoint_from_one_port_with_clsact_and_generic_xdp() {
    if !available() {
        return;
    }
    both_ways("direct-generic", &["--tc", "clsact", "--xdp", "generic"]);
}
