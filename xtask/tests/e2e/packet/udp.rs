//! UDP has no handshake: what a socket's datagrams meet is decided packet by packet.

use std::{net::SocketAddr, time::Duration};

use xtask::lab::{Place, TcpSession, UdpSession, available, objects::SliceBuilder};

use super::{
    exposed::{Exposed, VIAS},
    probe::{Meets, answer_of, check, probes},
    stage::Stage,
};
use crate::{
    fixture::TARGET,
    world::{SOON, eventually},
};

/// A moment: nobody answers, or not soon.
const MOMENT: Duration = Duration::from_millis(500);

/// The frontends of the packet path that a client outside uses: one of each kind, in both families.
pub(crate) fn outward(exposed: &Exposed, node: &Place) -> Vec<SocketAddr> {
    [exposed.node_port_of(node), exposed.external(), exposed.balancer()].concat()
}

/// Waits until a socket that stays the same is answered by this endpoint, from where it asked.
pub(crate) fn until_answered(session: &UdpSession, to: SocketAddr, endpoint: &str) {
    eventually(&format!("{endpoint} on the socket to {to}"), || {
        let answer = session.ask_to(b"x", to).map_err(|failure| failure.to_string())?;
        if answer.endpoint != endpoint {
            return Err(format!("{} answered", answer.endpoint));
        }
        assert_eq!(answer.remote, to);
        Ok(())
    });
}

#[test]
fn a_socket_moves_when_its_endpoint_is_replaced() {
    if !available() {
        return;
    }
    let stage = Stage::new("udp-moves");
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let apply = |names: &[&str]| {
        let members: Vec<_> = names.iter().map(|name| stage.member(name)).collect();
        stage.apply(&exposed.of(&members));
    };
    apply(&["web-a"]);
    let tos = outward(&exposed, &node);
    check(&probes(client, &VIAS, &tos, answer_of(&stage.place("web-a"), client)));
    let open = |to: &SocketAddr| (client.run(|| UdpSession::open(*to, MOMENT)).expect("a socket"), *to);
    let sockets: Vec<_> = tos.iter().map(open).collect();
    let ports: Vec<u16> =
        sockets.iter().map(|(socket, _)| socket.socket().local_addr().unwrap().port()).collect();
    for next in ["web-a", "web-b", "web-a", "node-a", "node-b"] {
        apply(&[next]);
        for (session, to) in &sockets {
            until_answered(session, *to, next);
        }
    }
    // The same with nobody there in between, as when a pod is deleted and made again.
    for next in ["web-b", "web-a"] {
        apply(&[]);
        check(&probes(client, &VIAS[1..2], &tos, |_| Meets::Refused));
        for (session, to) in &sockets {
            session.ask_to(b"lost", *to).expect_err("nobody is there");
        }
        apply(&[next]);
        for (session, to) in &sockets {
            until_answered(session, *to, next);
        }
    }
    let same: Vec<u16> =
        sockets.iter().map(|(socket, _)| socket.socket().local_addr().unwrap().port()).collect();
    assert_eq!(ports, same);
}

#[test]
fn a_socket_moves_to_a_new_target_port() {
    if !available() {
        return;
    }
    let stage = Stage::new("udp-port");
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let _server = stage.place("web-b").serve(9090).expect("another server");
    stage.apply(&exposed.of(&[stage.member("web-b")]));
    let tos = outward(&exposed, &node);
    check(&probes(client, &VIAS, &tos, answer_of(&stage.place("web-b"), &node)));
    let sessions = tos.clone().into_iter().map(|to| client.run(|| UdpSession::open(to, MOMENT)).unwrap());
    let sessions: Vec<_> = sessions.zip(tos).collect();
    for port in [TARGET, 9090, TARGET] {
        let ports = |slice: SliceBuilder| slice.port("udp", "UDP", port);
        stage.apply(&exposed.web.slices_with(&[stage.member("web-b")], ports));
        for (session, to) in &sessions {
            eventually(&format!("an answer from port {port} at {to}"), || {
                let answer = session.ask_to(b"x", *to).map_err(|failure| failure.to_string())?;
                if answer.local.port() == port { Ok(()) } else { Err(answer.local.to_string()) }
            });
        }
    }
}

#[test]
fn one_client_port_at_two_frontends_of_one_endpoint() {
    if !available() {
        return;
    }
    let stage = Stage::new("two-frontends");
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    for endpoint in ["web-a", "web-b"] {
        let web = stage.place(endpoint);
        let seen_as = if endpoint == "web-a" { client } else { &node };
        stage.apply(&exposed.of(&[stage.member(endpoint)]));
        let tos = outward(&exposed, &node);
        check(&probes(client, &VIAS, &tos, answer_of(&web, seen_as)));
        // One socket asks them all; the endpoint tells them apart by their ports, and so do the answers.
        for family in 0..2 {
            let tos: Vec<SocketAddr> = tos.iter().copied().skip(family).step_by(2).collect();
            let session = client.run(|| UdpSession::open_at(5555, tos[0], SOON)).expect("a socket");
            for _round in 0..3 {
                let mut peers = Vec::new();
                for to in &tos {
                    let answer = session.ask_to(b"x", *to).expect("an answer");
                    assert_eq!((answer.endpoint.as_str(), answer.remote), (endpoint, *to));
                    peers.push(answer.peer);
                }
                peers.sort_unstable();
                peers.dedup();
                assert_eq!(peers.len(), tos.len(), "{peers:?}");
            }
            drop(session);
            // And TCP, at the same time.
            let connect = |to: &SocketAddr| TcpSession::connect_from(6666, *to, SOON).expect("connected");
            let mut sessions: Vec<_> = client.run(|| tos.iter().map(connect).collect());
            for round in 0..3 {
                for (session, to) in sessions.iter_mut().zip(&tos) {
                    let message = format!("{to} {round}").into_bytes();
                    let answer = session.ask(&message).expect("an answer");
                    assert_eq!((answer.echo, answer.remote), (message, *to));
                }
            }
        }
    }
}

#[test]
fn what_is_sent_before_an_endpoint_is_ready_pins_nothing() {
    if !available() {
        return;
    }
    let stage = Stage::new("udp-early");
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let tos = outward(&exposed, &node);
    let sessions: Vec<_> =
        tos.iter().map(|to| (client.run(|| UdpSession::open(*to, MOMENT)).unwrap(), *to)).collect();
    let send = || {
        for (session, to) in &sessions {
            // Whether that is an error does not matter.
            let _sent = session.socket().send_to(b"early", to);
        }
    };
    send();
    stage.apply(&[exposed.service().build()]);
    let unready = stage.member("web-b").with(|endpoint| endpoint.conditions(false, false, false));
    stage.apply(&exposed.slices(&[unready]));
    check(&probes(client, &VIAS, &tos, |_| Meets::Refused));
    send();
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    for (session, to) in &sessions {
        until_answered(session, *to, "web-b");
    }
}
