//! What headers may hold: options, extensions, a hop count that runs out, ports that nobody has.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader,
    NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use xtask::lab::{ETH0, PacketSocket, UdpSession, Via, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{Meets, answer_of, check, probes},
    stage::Stage,
};
use crate::world::SOON;

/// The client's port.
const PORT: u16 = 45_454;

/// A datagram with options or extension headers, as far as the family has them.
fn datagram(from: IpAddr, to: SocketAddr, hops: u8, extended: bool) -> Vec<u8> {
    let headers = match (from, to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                Ipv4Header::new(0, hops, IpNumber::UDP, from.octets(), to.octets()).expect("short");
            if extended {
                // Nothing, three times, and the end.
                header.options = [1, 1, 1, 0].into();
            }
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                hop_limit: hops,
                source: from.octets(),
                destination: to.octets(),
                ..Default::default()
            };
            // An option that nobody knows, which is to be skipped then (RFC 8200 section 4.2).
            let skipped = |length: u8| {
                let mut options = vec![0x1e, length - 4];
                options.resize(usize::from(length) - 2, 0);
                Ipv6RawExtHeader::new_raw(IpNumber::UDP, &options).expect("a multiple of eight")
            };
            let extensions = Ipv6Extensions {
                hop_by_hop_options: Some(skipped(8)),
                destination_options: Some(skipped(24)),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, if extended { extensions } else { Default::default() })
        }
        families => panic!("two families: {families:?}"),
    };
    let mut packet = Vec::new();
    let udp = PacketBuilder::ip(headers).udp(PORT, to.port());
    udp.write(&mut packet, b"with headers").expect("memory");
    packet
}

#[test]
fn options_and_extension_headers_are_walked() {
    if !available() {
        return;
    }
    let stage = Stage::new("headers");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let sender = client.raw_sender().expect("a raw socket");
    for endpoint in ["web-a", "web-b"] {
        let exposed = Exposed::new(endpoint);
        stage.apply(&exposed.of(&[stage.member(endpoint)]));
        let seen_as = if endpoint == "web-a" { client } else { &node };
        let tos = exposed.all_of(&node);
        check(&probes(client, &VIAS, &tos, answer_of(&stage.place(endpoint), seen_as)));
        for to in tos {
            // The answer comes to a socket as any would.
            let session = client.run(|| UdpSession::open_at(PORT, to, SOON)).expect("a socket");
            let from = client.addresses().like(to.ip());
            sender.send(&datagram(from, to, 60, true)).expect("sent");
            let mut answer = [0; 1024];
            let (length, by) =
                session.socket().recv_from(&mut answer).unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_eq!(by, to);
            assert!(answer[..length].ends_with(b"with headers"));
        }
    }
}

/// An ICMP error: who sent it, its type and code, and the packet that it quotes.
#[derive(Debug, PartialEq, Eq)]
struct Error {
    from: IpAddr,
    kind: u8,
    code: u8,
    quoted: (IpAddr, SocketAddr),
}

/// Waits for the next ICMP error on a link, whose checksum must be right.
fn next_error(seen: &PacketSocket) -> Error {
    loop {
        let frame = seen.receive(SOON).expect("no error").expect("an ICMP error in time");
        let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
        match (packet.net, packet.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                let bytes = icmp.slice();
                assert_eq!(ones_complement(0, bytes), 0xffff, "a wrong checksum: {bytes:?}");
                if !matches!(icmp.icmp_type(), Icmpv4Type::EchoRequest(_) | Icmpv4Type::EchoReply(_)) {
                    let from = ip.header().source_addr().into();
                    return error(from, bytes, icmp.payload());
                }
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                let is_error = icmp.type_u8() < 128;
                if is_error {
                    let pseudo = [
                        &ip.header().source()[..],
                        &ip.header().destination()[..],
                        &u32::try_from(icmp.slice().len()).expect("short").to_be_bytes(),
                        &[0, 0, 0, 58],
                    ]
                    .concat();
                    let sum = ones_complement(ones_complement(0, &pseudo), icmp.slice());
                    assert_eq!(sum, 0xffff, "a wrong checksum: {:?}", icmp.slice());
                    let from = ip.header().source_addr().into();
                    return error(from, icmp.slice(), icmp.payload());
                }
                let _neighbours: Icmpv6Type = icmp.icmp_type();
            }
            _ => {}
        }
    }
}

fn error(from: IpAddr, icmp: &[u8], quoted: &[u8]) -> Error {
    let quoted = etherparse::LaxSlicedPacket::from_ip(quoted).expect("a quoted packet");
    let port = match quoted.transport {
        Some(TransportSlice::Udp(udp)) => udp.destination_port(),
        Some(TransportSlice::Tcp(tcp)) => tcp.destination_port(),
        _ => 0,
    };
    let (source, destination): (IpAddr, IpAddr) = match quoted.net.expect("an IP header") {
        etherparse::LaxNetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::LaxNetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        other => panic!("no IP: {other:?}"),
    };
    Error { from, kind: icmp[0], code: icmp[1], quoted: (source, SocketAddr::new(destination, port)) }
}

/// RFC 1071, a word at a time.
fn ones_complement(sum: u16, bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(sum, |sum, word| {
        let word = u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[test]
fn hops_that_run_out_are_reported_as_the_client_knows_them() {
    if !available() {
        return;
    }
    let stage = Stage::new("hops");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    let sender = client.raw_sender().expect("a raw socket");
    for endpoint in ["web-a", "web-b"] {
        let exposed = Exposed::new(endpoint);
        stage.apply(&exposed.of(&[stage.member(endpoint)]));
        let seen_as = if endpoint == "web-a" { client } else { &node };
        let tos = exposed.node_port_of(&node);
        check(&probes(client, &VIAS, &tos, answer_of(&stage.place(endpoint), seen_as)));
        let router = stage.world.lab().router().addresses();
        for to in tos {
            let from = client.addresses().like(to.ip());
            let exceeded = if to.is_ipv4() { 11 } else { 3 };
            let seen = client.packets(ETH0).expect("a look at the client's link");
            let session = client.run(|| UdpSession::open_at(PORT, to, SOON)).expect("a socket");
            // At the router, at the node; behind the node at the router again, or at the other node.
            let last = if endpoint == "web-a" { 2 } else { 4 };
            for hops in 1..=last {
                sender.send(&datagram(from, to, hops, false)).expect("sent");
                let error = next_error(&seen);
                let what = format!("{hops} hops to {to} for {endpoint}");
                assert_eq!((error.kind, error.code, error.quoted), (exceeded, 0, (from, to)), "{what}");
                // Behind the node port nobody shows.
                let from = if hops == 1 { router.like(to.ip()) } else { to.ip() };
                assert_eq!(error.from, from, "{what}");
            }
            sender.send(&datagram(from, to, last + 1, false)).expect("sent");
            let by = session.socket().recv_from(&mut [0; 1024]).expect("an answer").1;
            assert_eq!(by, to);
        }
    }
}

#[test]
fn what_a_cluster_ip_does_not_have_is_refused_to_clients_outside() {
    if !available() {
        return;
    }
    let stage = Stage::new("unknown");
    let exposed = Exposed::new("web");
    let (client, pod) = (&stage.outside, stage.place("client-a"));
    stage.apply(&exposed.of(&[stage.member("web-a")]));
    check(&probes(client, &VIAS, &exposed.cluster(), answer_of(&stage.place("web-a"), client)));
    let other_port = exposed.cluster().map(|to| SocketAddr::new(to.ip(), 81));
    let refused = |_| Meets::Refused;
    check(
        &[
            probes(client, &VIAS, &other_port, refused),
            probes(&pod, &[Via::Sctp], &other_port, refused),
            probes(&stage.place("node-a"), &[Via::Sctp], &other_port, refused),
        ]
        .concat(),
    );
    // Echo requests are answered in the same way.
    let sender = client.raw_sender().expect("a raw socket");
    for to in exposed.cluster() {
        let seen = client.packets(ETH0).expect("a look at the client's link");
        let mut packet = Vec::new();
        let (kind, code) = match (client.addresses().like(to.ip()), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let echo = PacketBuilder::ipv4(from.octets(), to.octets(), 60).icmpv4_echo_request(1, 1);
                echo.write(&mut packet, b"ping").expect("memory");
                (3, 3)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let echo = PacketBuilder::ipv6(from.octets(), to.octets(), 60).icmpv6_echo_request(1, 1);
                echo.write(&mut packet, b"ping").expect("memory");
                (1, 4)
            }
            families => panic!("two families: {families:?}"),
        };
        sender.send(&packet).expect("sent");
        let error = next_error(&seen);
        assert_eq!((error.from, error.kind, error.code), (to.ip(), kind, code));
    }
}
