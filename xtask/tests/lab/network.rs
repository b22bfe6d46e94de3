//! What tests do to the lab's network, and what they see of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::sys::socket::{getsockopt, sockopt};
use xtask::lab::{
    Capture, ETH0, Lab, Network, Offload, Place, SctpSession, Stream, TcpSession, UdpSession, Via, ask,
    ask_within, available,
};

use super::{ALONE, two_nodes};

const SOON: Duration = Duration::from_secs(10);

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn whole(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn at(place: &Place, port: u16) -> [SocketAddr; 2] {
    place.addresses().both().map(|ip| SocketAddr::new(ip, port))
}

#[test]
fn sctp_from_handshake_to_shutdown() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("sctp");
    let outside = lab.add_outside("outside").expect("a client is added");
    let web = lab.pod("web-2");
    let _server = web.serve_sctp(9000).expect("a server starts");
    for from in [&outside, &lab.pod("client"), &web, &lab.node("node-b")] {
        for to in at(&web, 9000) {
            let answer = from.run(|| ask(Via::Sctp, to)).expect("an answer");
            assert_eq!((answer.endpoint.as_str(), answer.local, answer.remote), ("web-2", to, to));
            assert_eq!(answer.echo, b"who are you?");
            let mut session = from.run(|| SctpSession::connect_from(50_000, to, SOON)).expect("connected");
            for n in 0..5 {
                let answer = session.ask(&[b'0' + n]).expect("an answer");
                assert_eq!((answer.echo, answer.peer.port()), (vec![b'0' + n], 50_000));
            }
            session.shutdown().expect("it ends in order");
        }
    }
    // Nobody listens: the kernel says that it does not know the protocol, or nothing where a raw socket does.
    for to in at(&lab.pod("web-1"), 9000) {
        let failure = outside.run(|| ask_within(Via::Sctp, to, SOON)).expect_err("no server");
        assert!(!failure.timed_out(), "{failure}");
    }
}

#[test]
fn networks_are_routed_to_a_node_and_elsewhere() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("route");
    let outside = lab.add_outside("outside").expect("a client is added");
    let networks: [Network; 2] = [
        (Ipv4Addr::new(203, 0, 113, 0).into(), 24),
        (Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0).into(), 64),
    ];
    let addresses: [IpAddr; 2] =
        [Ipv4Addr::new(203, 0, 113, 7).into(), Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 7).into()];
    for node in ["node-a", "node-b"].map(|name| lab.node(name)) {
        for (network, address) in networks.into_iter().zip(addresses) {
            lab.route_to(&node, network).expect("a route");
            node.add_address(ETH0, address).expect("an address");
            let to = SocketAddr::new(address, 8080);
            let _server = node.serve_on(&[to]).expect("a server starts");
            assert_eq!(outside.run(|| ask(Via::Tcp, to)).expect("an answer").endpoint, node.name());
            node.remove_address(address).expect("it is there");
            let failure = outside.run(|| ask_within(Via::Udp, to, Duration::from_millis(300)));
            failure.expect_err("nobody has the address");
        }
    }
    for network in networks {
        lab.router().route_nowhere(network).expect("a route");
    }
    let to = SocketAddr::new(addresses[0], 8080);
    let failure = outside.run(|| ask_within(Via::UdpConnected, to, Duration::from_millis(300)));
    assert!(failure.expect_err("dropped").timed_out());
}

#[test]
fn a_node_has_a_second_link_until_it_is_removed() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("second");
    let outside = lab.add_outside("outside").expect("a client is added");
    let node = lab.node("node-a");
    let link = lab.add_second_link(&node).expect("a second link");
    let tos = link.addresses.both().map(|ip| SocketAddr::new(ip, 8080));
    let _server = node.serve_on(&tos).expect("a server starts");
    for to in tos {
        assert_eq!(outside.run(|| ask(Via::Tcp, to)).expect("an answer").endpoint, "node-a");
    }
    lab.router().remove_link(&link.name).expect("removed");
    for to in tos {
        outside.run(|| ask_within(Via::Tcp, to, Duration::from_millis(300))).expect_err("it is gone");
    }
    node.add_idle_link("idle0").expect("a link that leads nowhere");
    node.set_up("idle0", false).expect("it goes down");
    node.remove_link("idle0").expect("it is removed");
}

#[test]
fn a_smaller_link_on_the_way_is_found_out() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("mtu");
    let outside = lab.add_outside("outside").expect("a client is added");
    let web = lab.pod("web-2");
    let _server = web.serve(8080).expect("a server starts");
    // Towards the pod, and towards the client: both sides hear of it by ICMP.
    let (router, node) = (lab.router(), lab.node("node-b"));
    for ip in web.addresses().both() {
        let via = node.addresses().like(ip);
        router.narrow_route((ip, whole(ip)), node.link(), via, 1300).expect("a narrow route");
    }
    for ip in outside.addresses().both() {
        router.narrow_route((ip, whole(ip)), outside.link(), ip, 1300).expect("a narrow route");
    }
    for to in at(&web, 8080) {
        let stream = Stream::start(&outside, to, Duration::ZERO);
        assert!(stream.wait_for_more(1 << 20, SOON));
        let report = stream.stop();
        assert_eq!((report.failure, report.endpoint.as_str()), (None, "web-2"));
        // In fragments, both ways.
        let message = vec![b'x'; 8192];
        let session = outside.run(|| UdpSession::open_at(4444, to, SOON)).expect("a socket");
        let answer = session.ask_to(&message, to).expect("an answer");
        assert_eq!((answer.echo, answer.peer.port()), (message, 4444));
    }
    let mut session = outside.run(|| TcpSession::connect(at(&web, 8080)[0], SOON)).expect("it connects");
    session.ask(&vec![b'x'; 16_000]).expect("an answer");
    assert_eq!(getsockopt(session.socket(), sockopt::IpMtu), Ok(1300));
}

/// None for what is not UDP over IPv4.
fn has_right_checksum(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) = (packet.net?, packet.transport?) else {
        return None;
    };
    let (from, to) = (ip.header().source(), ip.header().destination());
    Some(udp.to_header().calc_checksum_ipv4_raw(from, to, udp.payload()).ok()? == udp.checksum())
}

#[test]
fn checksums_are_finished_where_offloads_are_off() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("offload");
    let (client, web) = (lab.pod("client"), lab.pod("web-2"));
    let _server = web.serve(8080).expect("a server starts");
    let to = at(&web, 8080)[0];
    let finished = || {
        let seen = lab.router().packets(lab.node("node-a").link()).expect("a look at the router's link");
        client.run(|| ask(Via::Udp, to)).expect("an answer");
        // What looks for neighbours goes before it.
        loop {
            let frame = seen.receive(SOON).expect("no error").expect("the request");
            if let Some(finished) = has_right_checksum(&frame) {
                return finished;
            }
        }
    };
    assert!(!finished(), "a veth pair hands checksums over unfinished");
    client.set_offload(ETH0, Offload::TransmitChecksum, false).expect("switched off");
    assert!(finished());
    lab.node("node-a").set_offload(ETH0, Offload::ReceiveMerge, true).expect("switched on");
    assert_eq!(client.run(|| ask(Via::Tcp, to)).expect("an answer").endpoint, "web-2");
}

#[test]
fn packets_are_sent_as_they_are() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("raw");
    let outside = lab.add_outside("outside").expect("a client is added");
    let web = lab.pod("web-2");
    let seen = web.packets(ETH0).expect("a look at the pod's link");
    let sender = outside.raw_sender().expect("a raw socket");
    let payload = b"from somebody else";
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let somebody = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let build = PacketBuilder::ipv4([198, 18, 0, 9], web.addresses().v4.octets(), 60).udp(7, 9);
    build.write(&mut v4, payload).expect("written");
    let build = PacketBuilder::ipv6(somebody.octets(), web.addresses().v6.octets(), 60).udp(7, 9);
    build.write(&mut v6, payload).expect("written");
    for packet in [v4, v6] {
        sender.send(&packet).expect("sent");
        let found = (0..50).any(|_| {
            let frame = seen.receive(SOON).expect("no error").expect("a frame");
            frame.ends_with(payload)
        });
        assert!(found);
    }
}

#[test]
fn a_capture_is_kept_when_a_test_fails() {
    if !available() {
        return;
    }
    let _alone = alone();
    let lab = two_nodes("capture");
    let _server = lab.pod("web-1").serve(8080).expect("a server starts");
    let talk = |lab: &Lab| -> Capture {
        let capture = lab.pod("web-1").capture(ETH0).expect("a capture");
        for to in at(&lab.pod("web-1"), 8080) {
            lab.pod("client").run(|| ask(Via::Tcp, to)).expect("an answer");
        }
        capture
    };
    let scratch = std::env::temp_dir().join("ferroute-captures");
    let kept = || {
        let files = std::fs::read_dir(&scratch).into_iter().flatten().flatten();
        let ours = format!(
            "{}-",
            lab.node("node-a")
                .cgroup()
                .parent()
                .and_then(std::path::Path::file_name)
                .expect("the lab's name")
                .to_string_lossy()
        );
        files
            .map(|file| file.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&ours)))
            .collect::<Vec<_>>()
    };
    for old in kept() {
        std::fs::remove_file(old).expect("one of an earlier run");
    }
    drop(talk(&lab));
    assert_eq!(kept(), Vec::<std::path::PathBuf>::new());
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _capture = talk(&lab);
        std::panic::resume_unwind(Box::new(()));
    }));
    failed.expect_err("it panics");
    let files = kept();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = std::fs::read(&files[0]).expect("a file");
    std::fs::remove_file(&files[0]).expect("removed");
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_ne_bytes());
    assert!(bytes.len() > 1000, "{}", bytes.len());
}
