//! Others' flows: a hundred thousand of them cost nobody a connection.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use etherparse::PacketBuilder;
use xtask::lab::{Place, RawSender, SctpSession, Stream, Via, ask, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{answer_of, check, probes},
    stage::Stage,
};
use crate::world::{SOON, eventually};

/// Clients that there are not, by number: nobody answers for them, and what is sent to them is dropped.
fn stranger(n: u32, like: IpAddr) -> IpAddr {
    let [_, a, b, c] = n.to_be_bytes();
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(198, 18 + (a & 1), b, c).into(),
        IpAddr::V6(_) => {
            Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0x18, 0, 0, a.into(), u16::from_be_bytes([b, c])).into()
        }
    }
}

fn drop_what_is_sent_to_strangers(stage: &Stage) {
    let router = stage.world.lab().router();
    router.route_nowhere((Ipv4Addr::new(198, 18, 0, 0).into(), 15)).expect("a route");
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0x18, 0, 0, 0, 0);
    router.route_nowhere((v6.into(), 64)).expect("a route");
}

/// A packet of somebody: the beginning of a TCP connection, or a datagram.
fn packet(via: Via, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 60),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 60),
        families => panic!("two families: {families:?}"),
    };
    let mut packet = Vec::with_capacity(80);
    let written = match via {
        Via::Tcp => ip.tcp(from.port(), to.port(), 1, 1000).syn().write(&mut packet, &[]),
        _ => ip.udp(from.port(), to.port()).write(&mut packet, b"x"),
    };
    written.expect("memory");
    packet
}

/// Connections that are there before the others come.
struct Bystanders {
    streams: Vec<Stream>,
    associations: Vec<SctpSession>,
}

impl Bystanders {
    fn new(client: &Place, tos: &[SocketAddr]) -> Self {
        let stream = |to: &SocketAddr| Stream::start(client, *to, Duration::from_millis(1));
        let associate = |to: &SocketAddr| client.run(|| SctpSession::connect(*to, SOON)).expect("connected");
        let mut all = Self {
            streams: tos.iter().map(stream).collect(),
            associations: tos.iter().map(associate).collect(),
        };
        all.go_on();
        all
    }

    fn go_on(&mut self) {
        for stream in &self.streams {
            assert!(stream.wait_for_more(200_000, SOON * 2), "a TCP connection has stalled");
        }
        for association in &mut self.associations {
            association.ask(b"still here").expect("an association that was there before");
        }
    }

    fn end(mut self) {
        self.go_on();
        for stream in self.streams {
            assert_eq!(stream.stop().failure, None);
        }
    }
}

#[test]
fn a_flood_of_half_open_connections_disturbs_nobody() {
    if !available() {
        return;
    }
    let stage = Stage::new("flood");
    drop_what_is_sent_to_strangers(&stage);
    let services = ["web-a", "web-b"].map(|endpoint| (Exposed::new(endpoint), endpoint));
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let mut tos = Vec::new();
    for (exposed, endpoint) in &services {
        let seen_as = if *endpoint == "web-a" { client } else { &node };
        stage.apply(&exposed.of(&[stage.member(endpoint)]));
        check(&probes(
            client,
            &VIAS,
            &exposed.node_port_of(&node),
            answer_of(&stage.place(endpoint), seen_as),
        ));
        tos.extend(exposed.node_port_of(&node));
    }
    let mut bystanders = Bystanders::new(client, &tos);
    let sender = client.raw_sender().expect("a raw socket");
    // More than the map of half-open flows holds, of each family.
    for n in 0..150_000 {
        let to = tos[n as usize % tos.len()];
        let from = SocketAddr::new(stranger(n, to.ip()), 1024 + u16::try_from(n % 50_000).unwrap_or(0));
        send(&sender, &packet(Via::Tcp, from, to));
        if n % 25_000 == 0 {
            bystanders.go_on();
        }
    }
    bystanders.end();
    for to in tos {
        assert_eq!(client.run(|| ask(Via::Tcp, to)).expect("a new connection").remote, to);
    }
}

/// The link's queue may be full for a moment; what is lost then is no loss.
fn send(sender: &RawSender, packet: &[u8]) {
    let _sent = sender.send(packet);
}

#[test]
fn a_hundred_thousand_flows_over_a_small_map() {
    if !available() {
        return;
    }
    const FLOWS: u32 = 100_000;
    const AT_ONCE: u32 = 500;
    let stage = Stage::with("small-map", |spec| spec.arg("--max-flows").arg("1000"));
    drop_what_is_sent_to_strangers(&stage);
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    stage.apply(&exposed.of(&[stage.member("web-b")]));
    let tos = exposed.node_port_of(&node);
    let served = probes(client, &VIAS, &tos, answer_of(&stage.place("web-b"), &node));
    check(&served);
    let mut bystanders = Bystanders::new(client, &tos);
    let sender = client.raw_sender().expect("a raw socket");
    for first in (0..FLOWS).step_by(AT_ONCE as usize) {
        // Each sends, is answered, and goes on: that is no half-open flow any more.
        for _round in 0..2 {
            for n in first..first + AT_ONCE {
                let to = tos[n as usize % tos.len()];
                let from =
                    SocketAddr::new(stranger(n, to.ip()), 1024 + u16::try_from(n % 50_000).unwrap_or(0));
                send(&sender, &packet(Via::Udp, from, to));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    bystanders.go_on();
    eventually("the map is full", || {
        let full = stage.counter("node-a", "flowMapFull");
        if full > 0 { Ok(()) } else { Err("it was never full") }
    });
    // Who comes now is served all the same. The endpoint may still be busy with the others' datagrams.
    check(&served);
    bystanders.end();
}
