//! A VLAN beside the frames without a tag on one link: each has its own addresses, and its own programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use xtask::lab::{ETH0, Feature, Network, Node, Offload, Place, SecondLink, available};

use super::{
    exposed::{Exposed, NETWORKS, VIAS},
    probe::{Meets, Probe, answer_of, check, probes},
    stage::Stage,
};
use crate::{
    helpers::{cli, services},
    world::eventually,
};

const VLAN: u16 = 4094;

/// The pods of `node-b`.
const PODS_OF_B: [Network; 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 244, 2, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 2, 0, 0, 0, 0)), 64),
];

/// What `proxy-agent links` says of a link of `node-a`.
fn link(stage: &Stage, name: &str) -> Value {
    let json: Value = serde_json::from_str(&cli(&stage.world, "node-a", &["links", "-o", "json"])).unwrap();
    let links = json["links"].as_array().expect("a list");
    links.iter().find(|link| link["name"] == name).cloned().unwrap_or_default()
}

/// The programs on a link, as `program/way`.
fn programs(stage: &Stage, name: &str) -> Vec<String> {
    let link = link(stage, name);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attached = link["attached"].as_array().into_iter().flatten();
    attached.map(|one| format!("{}/{}", text(&one["program"]), text(&one["how"]))).collect()
}

fn until_it_has(stage: &Stage, name: &str, program: &str, wanted: bool) {
    eventually(&format!("{program} on {name}: {wanted}"), || {
        let all = programs(stage, name);
        let there = all.iter().any(|one| one.starts_with(program));
        if there == wanted { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

/// Services of an endpoint on either node and of none.
struct Services(Vec<(Exposed, Option<&'static str>)>);

impl Services {
    fn new(stage: &Stage) -> Self {
        let endpoints = [Some("web-a"), Some("web-b"), None];
        let services = endpoints.map(|endpoint| (Exposed::new(endpoint.unwrap_or("none")), endpoint));
        for (exposed, endpoint) in &services {
            let members: Vec<_> = endpoint.iter().map(|name| stage.member(name)).collect();
            stage.apply(&exposed.of(&members));
        }
        Self(services.into())
    }

    /// From outside: at the node's addresses without a tag and in the VLAN, and at those that are routed to the VLAN. What
    /// goes on to `node-b` is `through` an address.
    fn probes(&self, stage: &Stage, vlan: &SecondLink, through: impl Fn(IpAddr) -> IpAddr) -> Vec<Probe> {
        let client = &stage.outside;
        let of = |(exposed, endpoint): &(Exposed, Option<&str>)| {
            let tagged = vlan.addresses.both().map(|ip| SocketAddr::new(ip, exposed.node_port));
            let tos =
                [&exposed.node_port_of(&stage.node("node-a"))[..], &tagged, &exposed.external()].concat();
            let endpoint = endpoint.map(|name| stage.place(name));
            probes(client, &VIAS, &tos, |to| match &endpoint {
                None => Meets::Refused,
                Some(pod) if pod.name() == "web-a" => answer_of(pod, client)(to),
                Some(pod) => Meets::Answer(pod.name().to_owned(), through(to)),
            })
        };
        self.0.iter().flat_map(of).collect()
    }
}

/// The way from `node-a` to the pods of `node-b`, by this link.
fn lead_to_b(node: &Node, link: &str) {
    for network in PODS_OF_B {
        let gateway: IpAddr = if network.0.is_ipv4() {
            Ipv4Addr::new(169, 254, 0, 1).into()
        } else {
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe).into()
        };
        node.route(network, link, gateway).expect("a route to the pods of the other node");
    }
}

fn counter(stage: &Stage, name: &str) -> u64 {
    services(&stage.world, "node-a")["counters"][name].as_u64().expect("a counter")
}

/// With the agents started so; what is to happen when the node's link is fit for XDP is told apart by `xdp`.
fn beside(name: &str, arguments: &[&str], xdp: bool) {
    let mut stage = Stage::with(name, |spec| spec.args(arguments));
    if xdp {
        stage.prepare_for_xdp();
    }
    let services = Services::new(&stage);
    let node = stage.node("node-a");
    let router: &Place = stage.world.lab().router();
    let vlan = stage.world.lab().add_vlan(&node, VLAN).expect("a VLAN");
    for network in NETWORKS {
        let gateway = vlan.addresses.like(network.0);
        router.route(network, &vlan.name, gateway).expect("a route by the VLAN");
    }
    until_it_has(&stage, "eth1", "uplink_egress", true);
    let eth1 = link(&stage, "eth1");
    assert_eq!((&eth1["parent"], &eth1["role"]), (&ETH0.into(), &"uplink".into()), "{eth1}");
    // Its tags would be hidden from XDP.
    until_it_has(&stage, ETH0, "uplink_xdp", false);

    let own = node.addresses();
    check(&services.probes(&stage, &vlan, |to| own.like(to)));
    // To the other node by the VLAN: it then is the VLAN's address that comes there.
    lead_to_b(&node, "eth1");
    check(&services.probes(&stage, &vlan, |to| vlan.addresses.like(to)));
    if xdp {
        assert_eq!(counter(&stage, "xdpForwarded"), 0);
        // Now tags are where XDP programs see them.
        router.set_offload(node.link(), Offload::TransmitTag, false).expect("writing tags into frames");
        node.set_offload(ETH0, Offload::ReceiveTag, false).expect("leaving tags in frames");
        until_it_has(&stage, ETH0, "uplink_xdp", true);
        // No frame can be redirected to a VLAN from XDP; TC does it.
        check(&services.probes(&stage, &vlan, |to| vlan.addresses.like(to)));
        assert_eq!(counter(&stage, "xdpForwarded"), 0);
        lead_to_b(&node, ETH0);
        check(&services.probes(&stage, &vlan, |to| own.like(to)));
        assert!(counter(&stage, "xdpForwarded") > 0, "frames without a tag");
        node.set_offload(ETH0, Offload::ReceiveTag, true).expect("taking tags off frames");
        until_it_has(&stage, ETH0, "uplink_xdp", false);
    }
    node.remove_link("eth1").expect("it is there");
    for network in NETWORKS {
        stage.world.lab().route_to(&node, network).expect("a route without a VLAN");
    }
    lead_to_b(&node, ETH0);
    until_it_has(&stage, ETH0, "uplink_xdp", xdp);
    let client = &stage.outside;
    for (exposed, _) in services.0.iter().filter(|(_, endpoint)| *endpoint == Some("web-a")) {
        let tos = [exposed.external(), exposed.node_port_of(&node)].concat();
        check(&probes(client, &VIAS, &tos, answer_of(&stage.place("web-a"), client)));
    }
}

#[test]
fn a_vlan_serves_beside_its_parent() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    beside("vlan", &[], false);
}

#[test]
fn a_vlan_serves_beside_its_parent_with_clsact() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    beside("vlan-clsact", &["--tc", "clsact"], false);
}

#[test]
fn a_parent_has_xdp_when_tags_are_left_in_its_frames() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    beside("vlan-xdp", &["--xdp", "native"], true);
}
