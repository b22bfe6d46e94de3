//! Packets that are too large for a link: found out by ICMP, or sent in fragments.

use std::{fs, net::IpAddr, time::Duration};

use nix::sys::socket::{getsockopt, sockopt};
use xtask::lab::{ETH0, Place, Stream, TcpSession, UdpSession, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{answer_of, check, probes},
    stage::Stage,
};
use crate::world::SOON;

/// Bytes of a packet: enough for IPv6, and fewer than the 1500 that links take.
const SMALL: u32 = 1300;

/// Bytes of a transfer: hundreds of segments each way.
const ENOUGH: u64 = 2 << 20;

/// Where the way is narrow.
#[derive(Clone, Copy, Debug)]
enum Narrow {
    /// From the router to the client.
    Client,
    /// From the node that was asked to another one.
    Uplink,
    /// From the router to the endpoint's node, when that is not the one that was asked.
    Router,
    /// From the endpoint's node to the endpoint.
    Pod,
}

fn narrow(stage: &Stage, which: Narrow, endpoint: &str) {
    let router = stage.world.lab().router();
    let (asked, node) = (stage.node("node-a"), stage.node(stage.node_of(endpoint)));
    let pod = stage.place(endpoint);
    let gateways = ["169.254.0.1", "fe80::fe"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    for (family, gateway) in gateways.into_iter().enumerate() {
        let (to, place, link, via): (IpAddr, &Place, &str, IpAddr) = match which {
            Narrow::Client => {
                let ip = stage.outside.addresses().both()[family];
                (ip, router, stage.outside.link(), ip)
            }
            Narrow::Uplink => (pod.addresses().both()[family], &asked, ETH0, gateway),
            Narrow::Router => {
                (pod.addresses().both()[family], router, node.link(), node.addresses().both()[family])
            }
            Narrow::Pod => {
                let ip = pod.addresses().both()[family];
                (ip, &node, pod.link(), ip)
            }
        };
        let whole = if to.is_ipv4() { 32 } else { 128 };
        place.narrow_route((to, whole), link, via, SMALL).expect("a narrow route");
    }
}

/// A transfer through node ports of node-a to an endpoint, over a way that is narrow somewhere.
fn transfer(which: Narrow, endpoint: &str) {
    // A path that is known to be narrow stays so: each has a lab of its own.
    let stage = Stage::new(&format!("mtu-{which:?}-{endpoint}").to_lowercase());
    let exposed = Exposed::new("web");
    let (node, web) = (stage.place("node-a"), stage.place(endpoint));
    stage.apply(&exposed.of(&[stage.member(endpoint)]));
    let seen_as = if endpoint == "web-a" { &stage.outside } else { &node };
    let tos = exposed.node_port_of(&node);
    check(&probes(&stage.outside, &VIAS, &tos, answer_of(&web, seen_as)));
    narrow(&stage, which, endpoint);
    for to in tos {
        let stream = Stream::start(&stage.outside, to, Duration::ZERO);
        assert!(stream.wait_for_more(ENOUGH, SOON), "{which:?} {endpoint} {to}: {:?}", stream.stop());
        let report = stream.stop();
        assert_eq!((report.failure, report.endpoint.as_str()), (None, endpoint));
    }
    // What the client has learnt is the way to the node port: it never heard of the endpoint.
    if !matches!(which, Narrow::Client) {
        let to = tos[0];
        let session = stage.outside.run(|| TcpSession::connect(to, SOON)).expect("connected");
        let known = getsockopt(session.socket(), sockopt::IpMtu);
        assert_eq!(known, Ok(i32::try_from(SMALL).expect("small")), "{which:?} {endpoint}");
    }
}

#[test]
fn a_narrow_way_to_the_client_is_found_out() {
    if !available() {
        return;
    }
    for endpoint in ["web-a", "web-b"] {
        transfer(Narrow::Client, endpoint);
    }
}

#[test]
fn a_narrow_way_to_another_node_is_found_out() {
    if !available() {
        return;
    }
    for which in [Narrow::Uplink, Narrow::Router] {
        transfer(which, "web-b");
    }
}

#[test]
fn a_narrow_way_to_the_endpoint_is_found_out() {
    if !available() {
        return;
    }
    for endpoint in ["web-a", "web-b"] {
        transfer(Narrow::Pod, endpoint);
    }
}

#[test]
fn datagrams_of_8_kilobytes_in_fragments() {
    if !available() {
        return;
    }
    for (name, arguments) in [("fragments", &["--xdp", "off"][..]), ("fragments-xdp", &["--xdp", "native"])] {
        let mut stage = Stage::with(name, |spec| spec.args(arguments));
        stage.prepare_for_xdp();
        let client = &stage.outside;
        for endpoint in ["web-a", "web-b", "node-a"] {
            let exposed = Exposed::new(endpoint);
            let (node, web) = (stage.place("node-a"), stage.place(endpoint));
            stage.apply(&exposed.of(&[stage.member(endpoint)]));
            let seen_as = if endpoint == "web-b" { &node } else { client };
            let tos = exposed.all_of(&node);
            check(&probes(client, &VIAS, &tos, answer_of(&web, seen_as)));
            for to in tos {
                let session = client.run(|| UdpSession::open(to, SOON)).expect("a socket");
                for length in [1800, 8192, 40_000] {
                    let message: Vec<u8> =
                        (0..length).map(|n| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect();
                    let what = format!("{length} bytes to {endpoint} at {to}");
                    let answer = session.ask_to(&message, to);
                    let answer = answer.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                    assert!(answer.echo == message, "{what}: another came back");
                    assert_eq!((answer.endpoint.as_str(), answer.remote), (endpoint, to), "{what}");
                }
            }
        }
        node_takes_fragments_of_the_router(&stage);
    }
}

/// IPv4 only: routers do not split IPv6.
fn node_takes_fragments_of_the_router(stage: &Stage) {
    let exposed = Exposed::new("split");
    let (node, client) = (stage.place("node-a"), &stage.outside);
    stage.apply(&exposed.of(&[stage.member("web-a")]));
    let to = exposed.node_port_of(&node)[0];
    let router = stage.world.lab().router();
    router.narrow_route((to.ip(), 32), node.link(), to.ip(), SMALL).expect("a narrow route");
    check(&probes(client, &VIAS, &[to], answer_of(&stage.place("web-a"), client)));
    // Or the client forbids it and splits what it sends by itself, once it has seen an error.
    let allow = || fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1");
    client.run(allow).expect("splitting is allowed");
    let session = client.run(|| UdpSession::open(to, SOON)).expect("a socket");
    let message = vec![b'x'; 1400];
    assert_eq!(session.ask_to(&message, to).expect("an answer").echo, message);
}
