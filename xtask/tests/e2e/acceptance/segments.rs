//! TCP segments that do not belong: a connection through a Service is as robust as any.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv, sendto,
        setsockopt, socket, sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike as _},
};
use xtask::lab::{Place, TcpSession, available};

use crate::{
    fixture::{TARGET, Web, serve, until_served_by},
    world::{From, SOON, World, eventually},
};

const ACK: u8 = 0x10;

/// What counts of a TCP segment.
#[derive(Clone, Copy, Debug)]
struct Segment {
    source: u16,
    destination: u16,
    sequence: u32,
    acknowledged: u32,
}

impl Segment {
    fn parse(packet: &[u8]) -> Option<Self> {
        let tcp = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
        let number = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let ports = number(0)?;
        Some(Self {
            source: u16::try_from(ports >> 16).ok()?,
            destination: u16::try_from(ports & 0xffff).ok()?,
            sequence: number(4)?,
            acknowledged: number(8)?,
        })
    }

    /// The segment in network order, with some payload and the right checksum.
    fn bytes(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        // Twenty bytes of header; window; checksum, for now; no urgent data.
        bytes.extend([5 << 4, ACK, 1, 0, 0, 0, 0, 0]);
        bytes.extend(b"boom");
        let length = u16::try_from(bytes.len()).expect("a short segment").to_be_bytes();
        let pseudo = [&from.octets()[..], &to.octets(), &[0, 6], &length].concat();
        let words = [pseudo, bytes.clone()].concat();
        let sum: u32 = words.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        // Ones' complement: modulo 65535.
        let checksum = !u16::try_from(sum % 0xffff).expect("less than 65535");
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

/// A raw socket of TCP: it gets a copy of every segment to its address, and sends any that it likes.
struct Raw(OwnedFd);

impl Raw {
    /// To be called in the place of the address.
    fn bind(address: Ipv4Addr) -> Self {
        let fd =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, 0))).unwrap();
        setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(SOON.as_millis().try_into().unwrap()))
            .unwrap();
        Self(fd)
    }

    /// A packet, with its IP header.
    fn receive(&self) -> Vec<u8> {
        let mut packet = vec![0; 2048];
        let length = recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty()).expect("receiving a segment");
        packet.truncate(length);
        packet
    }

    fn send(&self, segment: &[u8], to: Ipv4Addr) {
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(self.0.as_raw_fd(), segment, &to, MsgFlags::empty()).expect("sending a segment");
    }
}

/// A counter of TCP in the network of a place.
fn tcp_counter(place: &Place, name: &str) -> u64 {
    let text = place.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).expect("reading the counters");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.split(' ').zip(values.split(' ')).find(|(key, _)| *key == name);
    found.expect("a counter of that name").1.parse().expect("a number")
}

#[test]
fn row_057_segments_out_of_the_window_break_nothing() {
    if !available() {
        return;
    }
    for (name, endpoint) in [("row-057-local", "web-1"), ("row-057-remote", "web-2")] {
        let world =
            World::new(name, From::Manifests, &[("node-a", &["client", "web-1"]), ("node-b", &["web-2"])]);
        let _servers = serve(&world, &[endpoint]);
        let web = Web::new("web");
        let (client, server) = (world.pod("client"), world.pod(endpoint));
        world.apply(&web.of(&[&server]));
        until_served_by(&client, &web, &[endpoint]);
        let (from, to) = (server.addresses().v4, client.addresses().v4);

        let raw = server.run(|| Raw::bind(from));
        let mut session = client.run(|| TcpSession::connect(web.v4, SOON)).unwrap();
        session.ask(b"before").unwrap();
        let port = session.socket().local_addr().unwrap().port();
        let last = loop {
            let packet = raw.receive();
            let segment = Segment::parse(&packet).expect("a whole segment");
            // The first ones are the handshake's.
            if segment.source == port && packet.ends_with(b"before\n") {
                break segment;
            }
        };
        assert_eq!(last.destination, TARGET);

        let before = (tcp_counter(&client, "OutRsts"), tcp_counter(&server, "OutRsts"));
        let received = tcp_counter(&client, "InSegs");
        let offsets = [1 << 20, 1 << 28, 1 << 30, 1 << 31, 3 << 30, u32::MAX - (1 << 20)];
        for offset in offsets {
            let wrong = Segment {
                source: TARGET,
                destination: port,
                sequence: last.acknowledged.wrapping_add(offset),
                acknowledged: last.sequence.wrapping_add(7),
            };
            raw.send(&wrong.bytes(from, to), to);
        }
        eventually("the segments to arrive", || {
            let more = tcp_counter(&client, "InSegs") - received;
            if more >= offsets.len() as u64 { Ok(()) } else { Err(format!("{more} have")) }
        });
        for _ in 0..3 {
            let answer = session.ask(b"after").unwrap();
            assert_eq!(
                (answer.endpoint.as_str(), answer.remote, answer.echo.as_slice()),
                (endpoint, web.v4, &b"after"[..])
            );
        }
        assert_eq!(before, (tcp_counter(&client, "OutRsts"), tcp_counter(&server, "OutRsts")));
        assert_eq!(tcp_counter(&client, "InErrs"), 0, "what was injected was not well-formed");
    }
}
