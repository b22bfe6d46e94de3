//! Links and addresses of a node that come and go, and what is attached to them.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    slice::from_ref,
};

use xtask::lab::{ETH0, Node, Place, Via, ask_within, available, objects::SliceBuilder};

use super::{
    exposed::{Exposed, NETWORKS, PORT, VIAS},
    probe::{answer_of, check, probes},
    stage::Stage,
};
use crate::{
    fixture::{Member, TARGET},
    helpers::{bpftool, cli},
    world::{TRY, eventually},
};

/// Addresses that a node gets while its agent runs.
const LATE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 20, 0, 7)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x172, 0x20, 0, 0, 0, 0, 7))];

/// The programs on the links of a node, as `link kind`.
fn attached(node: &Node) -> BTreeSet<String> {
    let all = bpftool(node, &["net", "show"]);
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let list = |kind: &str| all[0][kind].as_array().cloned().unwrap_or_default();
    let tc =
        list("tc").into_iter().map(|entry| format!("{} {}", text(&entry, "devname"), text(&entry, "kind")));
    let xdp = list("xdp")
        .into_iter()
        .map(|entry| format!("{} xdp-{}", text(&entry, "devname"), text(&entry, "mode")));
    // Older ones of it do not know of tcx.
    let tcx = links(node).into_iter().flat_map(|link| {
        let programs = node.tcx_programs(&link).expect("asking for programs");
        let ways = ["ingress", "egress"].into_iter().zip(programs).filter(|(_, programs)| *programs > 0);
        ways.map(|(way, _)| format!("{link} tcx/{way}")).collect::<Vec<_>>()
    });
    tc.filter(|entry| !entry.contains("tcx")).chain(xdp).chain(tcx).collect()
}

/// The names of a node's links.
fn links(node: &Node) -> Vec<String> {
    let text = node.run(|| fs::read_to_string("/proc/thread-self/net/dev")).expect("a list of links");
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn until_attached(node: &Node, link: &str, wanted: bool) {
    eventually(&format!("programs on {link}: {wanted}"), || {
        let all = attached(node);
        // One for each way: with the first alone nothing is translated yet.
        let there = all.iter().filter(|entry| entry.starts_with(&format!("{link} "))).count();
        if there == if wanted { 2 } else { 0 } { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

/// Waits until a place has no answer any more.
fn until_left_alone(place: &Place, to: SocketAddr) {
    eventually(&format!("no answer at {to}"), || {
        match place.run(|| ask_within(Via::UdpConnected, to, TRY)) {
            Ok(answer) => Err(format!("{} answered", answer.endpoint)),
            Err(_) => Ok(()),
        }
    });
}

#[test]
fn node_ports_follow_the_addresses_of_the_node() {
    if !available() {
        return;
    }
    let stage = Stage::new("addresses");
    let exposed = Exposed::new("web");
    let (client, node) = (&stage.outside, stage.place("node-a"));
    stage.apply(&exposed.of(&[stage.member("web-a")]));
    let web = stage.place("web-a");
    check(&probes(client, &VIAS, &exposed.node_port_of(&node), answer_of(&web, client)));
    let tos = LATE.map(|ip| SocketAddr::new(ip, exposed.node_port));
    for ip in LATE {
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        stage.world.lab().route_to(&stage.node("node-a"), (ip, whole)).expect("a route");
    }
    for link in [ETH0, "lo"] {
        for ip in LATE {
            node.add_address(link, ip).expect("another address");
        }
        let pod = stage.place("client-a");
        check(
            &[
                probes(client, &VIAS, &tos, answer_of(&web, client)),
                probes(&pod, &VIAS, &tos, answer_of(&web, &pod)),
            ]
            .concat(),
        );
        for ip in LATE {
            node.remove_address(ip).expect("it was there");
        }
        for to in tos {
            until_left_alone(client, to);
            until_left_alone(&node, to);
        }
        check(&probes(client, &VIAS, &exposed.node_port_of(&node), answer_of(&web, client)));
    }
}

#[test]
fn a_second_uplink_serves_until_it_is_removed() {
    if !available() {
        return;
    }
    let stage = Stage::new("second-link");
    let services = ["web-a", "web-b"].map(|endpoint| (Exposed::new(endpoint), stage.place(endpoint)));
    for (exposed, endpoint) in &services {
        stage.apply(&exposed.of(&[stage.member(endpoint.name())]));
    }
    let (client, node) = (&stage.outside, stage.node("node-a"));
    let lab = stage.world.lab();
    for _round in 0..2 {
        let link = lab.add_second_link(&node).expect("a second link");
        until_attached(&node, "eth1", true);
        for network in NETWORKS {
            let gateway = link.addresses.like(network.0);
            lab.router().route(network, &link.name, gateway).expect("a route by the second link");
        }
        for (exposed, endpoint) in &services {
            let tos = [
                link.addresses.both().map(|ip| SocketAddr::new(ip, exposed.node_port)),
                exposed.external(),
                exposed.node_port_of(&node),
            ]
            .concat();
            // What goes to another node leaves by the first link, and under its address.
            let seen_as: &Place = if endpoint.name() == "web-a" { client } else { &node };
            check(&probes(client, &VIAS, &tos, answer_of(endpoint, seen_as)));
        }
        lab.router().remove_link(&link.name).expect("it is there");
        for network in NETWORKS {
            lab.route_to(&node, network).expect("a route by the first link");
        }
        for (exposed, endpoint) in &services {
            let tos = [exposed.external(), exposed.node_port_of(&node)].concat();
            let seen_as: &Place = if endpoint.name() == "web-a" { client } else { &node };
            check(&probes(client, &VIAS, &tos, answer_of(endpoint, seen_as)));
        }
    }
}

#[test]
fn links_of_pods_have_programs_while_a_service_needs_them() {
    if !available() {
        return;
    }
    let stage = Stage::new("workload-links");
    let exposed = Exposed::new("web");
    let (node, client) = (stage.node("node-a"), stage.place("client-a"));
    let plain = |slice: SliceBuilder| slice.port("tcp", "TCP", TARGET).port("udp", "UDP", TARGET);
    let member = [stage.member("web-b")];
    let service = exposed.web.service().build();
    stage.apply(from_ref(&service));
    stage.apply(&exposed.web.slices_with(&member, plain));
    check(&probes(&client, &VIAS[..2], &exposed.cluster(), answer_of(&stage.place("web-b"), &client)));
    let (link, eth0) = (client.link().to_owned(), ETH0);
    assert!(attached(&node).iter().all(|entry| entry.starts_with(eth0)), "{:?}", attached(&node));
    for _round in 0..2 {
        // SCTP brings them, also to pods that come later. Endpoints first: programs say that the Service is known.
        stage.apply(&exposed.slices(&member));
        stage.apply(&exposed.of(&member));
        until_attached(&node, &link, true);
        check(&probes(&client, &VIAS, &exposed.cluster(), answer_of(&stage.place("web-b"), &client)));
        stage.apply(from_ref(&service));
        until_attached(&node, &link, false);
        // And so do source ranges.
        let tcp = exposed.web.bare().port("tcp", "TCP", PORT, TARGET).kind("LoadBalancer");
        let ranges = tcp.balancer_ip(exposed.balancer()[0].ip()).source_ranges(&["10.0.0.0/8"]);
        stage.apply(&[ranges.build()]);
        until_attached(&node, &link, true);
        stage.apply(from_ref(&service));
        until_attached(&node, &link, false);
    }
    stage.apply(&exposed.slices(&member));
    stage.apply(&exposed.of(&member));
    let late = stage.world.lab().add_pod(&node, "late-a").expect("another pod");
    until_attached(&node, late.link(), true);
    let _servers =
        (late.serve(TARGET).expect("a server"), late.serve_sctp(TARGET).expect("a server of SCTP"));
    check(&probes(&late, &VIAS, &exposed.cluster(), answer_of(&stage.place("web-b"), &late)));
    stage.apply(&exposed.slices(&[Member::pod(&late)]));
    check(&probes(&stage.outside, &VIAS, &exposed.external(), answer_of(&late, &stage.outside)));
}

#[test]
fn nothing_is_left_on_the_links_after_cleanup() {
    if !available() {
        return;
    }
    for (name, arguments) in [
        ("clean-tcx", &["--tc", "tcx", "--xdp", "off"][..]),
        ("clean-clsact", &["--tc", "clsact", "--xdp", "off"]),
        ("clean-native", &["--xdp", "native"]),
        ("clean-generic", &["--tc", "clsact", "--xdp", "generic"]),
    ] {
        let mut stage = Stage::with(name, |spec| spec.args(arguments));
        stage.prepare_for_xdp();
        let node = stage.node("node-a");
        let exposed = Exposed::new("web");
        stage.apply(&exposed.of(&[stage.member("web-a")]));
        let served = probes(
            &stage.outside,
            &VIAS,
            &exposed.node_port_of(&node),
            answer_of(&stage.place("web-a"), &stage.outside),
        );
        check(&served);
        // On the uplink and, because of SCTP, on the links of two pods: both ways.
        let all = eventually("every program", || {
            let all = attached(&node);
            let ways = all.iter().filter(|entry| !entry.contains("xdp")).count();
            if ways == 6 { Ok(all) } else { Err(format!("{all:?}")) }
        });
        let has = |what: &str| all.iter().any(|entry| entry.contains(what));
        assert_eq!(has("clsact"), arguments.contains(&"clsact"), "{all:?}");
        assert_eq!(has("tcx"), !arguments.contains(&"clsact"), "{all:?}");
        assert_eq!(has("xdp"), !arguments.contains(&"off"), "{all:?}");
        // They stay when the agent ends, and go when they are told to.
        assert!(stage.world.take_agent("node-a").terminate().expect("an end").success());
        check(&served);
        assert_eq!(attached(&node), all);
        cli(&stage.world, "node-a", &["cleanup"]);
        assert_eq!(attached(&node), BTreeSet::new());
        let qdiscs = node.qdiscs(ETH0).expect("asking for qdiscs");
        assert!(!qdiscs.iter().any(|kind| kind == "clsact"), "{qdiscs:?}");
        // And come again.
        stage.world.start_agent("node-a");
        check(&served);
    }
}
