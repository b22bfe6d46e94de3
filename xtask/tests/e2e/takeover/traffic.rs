//! Traffic that goes on while Ferroute comes to a node of kube-proxy's, while kube-proxy's rules go, and while kube-proxy
//! gets the node back.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use xtask::lab::{Load, LoadSpec, Place, Stream, UdpSession, Via, objects::ServiceBuilder};

use super::rules::{Mode, ready, tables};
use crate::{
    fixture::{TARGET, Web},
    helpers::{PATIENCE, cli, until_logged},
    packet::stage::Stage,
    world::SOON,
};

/// The Service of the rules: its addresses, and its node port on those of node-a.
const CLUSTER: [&str; 2] = ["10.96.200.10", "fd00:10:96::c80a"];
const EXTERNAL: [&str; 2] = ["203.0.113.200", "2001:db8:113::c8"];
const NODE: [&str; 2] = ["172.18.0.1", "fd00:172:18::1"];
const NODE_PORT: u16 = 31_080;

fn all(ips: [&str; 2], port: u16) -> [SocketAddr; 2] {
    ips.map(|ip| (ip.parse::<IpAddr>().expect("an address"), port).into())
}

/// The same Service as the API has it, now that its endpoint on the other node is gone: kube-proxy's connections to
/// that one go on. Ferroute opens none there, for kube-proxy masquerades with any port of the node, and a flow of
/// Ferroute's could by chance have that of one of its connections to the same endpoint.
fn service(stage: &Stage) -> Vec<Value> {
    let [v4, v6] = CLUSTER;
    let web = Web::at("web", (v4.parse().expect("IPv4"), v6.parse().expect("IPv6")));
    let ports = [("tcp", "TCP"), ("udp", "UDP")];
    let service = ports.iter().fold(web.bare().kind("NodePort"), |service, (name, protocol)| {
        service.port(name, protocol, 80, TARGET).node_port(NODE_PORT)
    });
    let ips = EXTERNAL.map(|ip| ip.parse::<IpAddr>().expect("an address"));
    let service = ips.into_iter().fold(service, ServiceBuilder::external_ip);
    [vec![service.build()], web.slices(&[stage.member("web-a")])].concat()
}

/// New connections, one after the other, from everywhere and to every kind of address.
struct Requests(Vec<(String, Load)>);

impl Requests {
    fn start(stage: &Stage) -> Self {
        let (pod, host) = (stage.place("client-a"), stage.place("node-a"));
        let from = |place: &Place, via: Via, to: SocketAddr| {
            let spec = LoadSpec {
                pause: Duration::from_millis(5),
                patience: PATIENCE,
                longest: Duration::from_secs(600),
                ..LoadSpec::new(via, to)
            };
            (format!("{via:?} from {} to {to}", place.name()), Load::start(place, spec))
        };
        let mut loads = Vec::new();
        for family in 0..2 {
            let [cluster, external] = [all(CLUSTER, 80)[family], all(EXTERNAL, 80)[family]];
            let node = all(NODE, NODE_PORT)[family];
            loads.push(from(&pod, Via::Tcp, cluster));
            loads.push(from(&pod, Via::Udp, cluster));
            loads.push(from(&stage.outside, Via::Tcp, node));
            loads.push(from(&stage.outside, Via::UdpConnected, node));
            loads.push(from(&stage.outside, Via::Tcp, external));
            loads.push(from(&host, Via::Tcp, cluster));
        }
        Self(loads)
    }

    fn go_on(&self, what: &str) {
        for (load, requests) in &self.0 {
            assert!(requests.wait_for_more(20, SOON * 3), "{what}: {load}: no 20 answers");
        }
    }

    /// Stops them. Of each at most so many have failed, by what they are.
    fn end(self, what: &str, may_fail: impl Fn(&str) -> u64) {
        for (load, requests) in self.0 {
            let report = requests.stop();
            let most = may_fail(&load);
            assert!(
                report.failed <= most,
                "{what}: {load}: {} of {} failed, more than {most}: {:?}",
                report.failed,
                report.sent(),
                report.failures
            );
            if report.failed > 0 {
                eprintln!(
                    "{what}: {load}: {} of {} failed: {:?}",
                    report.failed,
                    report.sent(),
                    report.failures
                );
            }
        }
    }
}

/// Connections that stay open.
struct Connections {
    streams: Vec<(String, Stream)>,
    sockets: Vec<(Place, UdpSession, SocketAddr)>,
}

impl Connections {
    fn open(stage: &Stage, from_outside: bool) -> Self {
        let place = if from_outside { stage.outside.clone() } else { stage.place("client-a") };
        let tos = if from_outside { all(NODE, NODE_PORT) } else { all(CLUSTER, 80) };
        let mut connections = Self { streams: Vec::new(), sockets: Vec::new() };
        // Four to each: both endpoints are among them but for one time in eight, and in sixty-four for both families.
        for to in tos.repeat(4) {
            let stream = Stream::start(&place, to, Duration::from_millis(20));
            connections.streams.push((format!("{} to {to}", place.name()), stream));
        }
        for to in tos {
            let socket = place.run(|| UdpSession::connect(to, PATIENCE)).expect("a socket");
            connections.sockets.push((place.clone(), socket, to));
        }
        connections
    }

    fn go_on(&self, what: &str) {
        for (from, stream) in &self.streams {
            assert!(stream.wait_for_more(150_000, SOON * 2), "{what}: a TCP connection of {from}");
        }
        for (place, socket, to) in &self.sockets {
            let answer = place.run(|| socket.ask(b"x"));
            assert!(answer.is_ok(), "{what}: UDP of {} to {to}: {answer:?}", place.name());
        }
    }

    fn end(self, what: &str) {
        for (from, stream) in self.streams {
            let report = stream.stop();
            assert_eq!(
                report.failure, None,
                "{what}: a TCP connection of {from}, after {} bytes",
                report.bytes
            );
        }
    }
}

fn take_over_and_give_back(name: &str, mode: Mode) {
    let mut stage = Stage::new(name);
    let node = stage.node("node-a");
    assert!(stage.world.take_agent("node-a").terminate().expect("an end").success());
    cli(&stage.world, "node-a", &["cleanup"]);
    stage.apply(&service(&stage));
    mode.add_kube_proxy(&node);

    let requests = Requests::start(&stage);
    let of_kube_proxy = [true, false].map(|from_outside| Connections::open(&stage, from_outside));
    let go_on = |what: &str| {
        requests.go_on(what);
        of_kube_proxy.iter().for_each(|connections| connections.go_on(what));
    };
    go_on("with kube-proxy");

    stage.world.start_agent("node-a");
    go_on("with both");
    until_logged(&stage.world, "node-a", 0, &["kube-proxy has left rules", "cleanup --kube-proxy"]);

    let removed = cli(&stage.world, "node-a", &["cleanup", "--kube-proxy"]);
    assert!(removed.contains("removed "), "{removed}");
    go_on("with Ferroute");
    assert!(!mode.all(&node).contains("KUBE-S") && !tables(&node).contains("kube-proxy"));
    let of_ferroute = Connections::open(&stage, false);
    let through_packets = Connections::open(&stage, true);
    of_ferroute.go_on("Ferroute's own");
    through_packets.go_on("Ferroute's own, of packets");
    go_on("with Ferroute alone");
    requests.end("taking over", |_| 0);

    let requests = Requests::start(&stage);
    requests.go_on("with Ferroute");
    mode.add_kube_proxy(&node);
    requests.go_on("with both again");
    assert!(stage.world.take_agent("node-a").terminate().expect("an end").success());
    cli(&stage.world, "node-a", &["cleanup"]);
    let new = Requests::start(&stage);
    new.go_on("given back");
    requests.go_on("given back");
    new.end("given back", |_| 0);
    // One may have been on its way, whose answer nobody makes look like the Service's any more.
    requests.end("giving back", |load| {
        u64::from(!load.starts_with("Tcp from client") && !load.starts_with("Tcp from node"))
    });

    // Sockets were connected to endpoints, and are.
    for connections in of_kube_proxy.iter().chain([&of_ferroute]) {
        for (from, stream) in &connections.streams {
            assert!(stream.wait_for_more(150_000, SOON * 2), "given back: a TCP connection of {from}");
        }
    }
    of_ferroute.end("given back");
    of_kube_proxy.into_iter().for_each(|connections| connections.end("given back"));
    // Packets that nobody translates any more end the others: most are reset.
    for (from, stream) in through_packets.streams {
        while stream.wait_for_more(1, Duration::from_secs(2)) {}
        assert!(stream.stop().failure.is_some(), "README says that a connection of {from} ends");
    }
}

#[test]
fn from_iptables_and_back() {
    if ready() {
        take_over_and_give_back("take-from-iptables", Mode::Iptables);
    }
}

#[test]
fn from_nftables_and_back() {
    if ready() {
        take_over_and_give_back("take-from-nftables", Mode::Nftables);
    }
}

#[test]
fn from_legacy_iptables_and_back() {
    if ready() {
        take_over_and_give_back("take-from-legacy", Mode::Legacy);
    }
}
