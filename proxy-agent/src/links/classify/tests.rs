//! Nodes as they are found, by what `ip address` and `ip route` show on them.

use super::*;
use crate::links::RouteFacts;

use LinkRole::{None as Nothing, Uplink, Workload};

#[derive(Default)]
struct Node(Facts);

/// `kind` as `ip -d link` shows it; `+` before it: a part of another link.
fn node(links: &[(&str, &str, &[&str])]) -> Node {
    let mut node = Node::default();
    let loopback = LinkFacts {
        index: 1,
        name: "lo".into(),
        up: true,
        loopback: true,
        addresses: ["127.0.0.1", "::1"].map(address).into(),
        ..LinkFacts::default()
    };
    node.0.links.push(loopback);
    for (number, (name, kind, addresses)) in links.iter().enumerate() {
        let addresses: Vec<_> = addresses.iter().map(|text| address(text)).collect();
        node.0.links.push(LinkFacts {
            index: u32::try_from(number).unwrap() + 2,
            name: (*name).to_owned(),
            up: true,
            ethernet: !["ipip", "wireguard", "tun"].contains(kind),
            enslaved: kind.starts_with('+'),
            kind: kind.trim_start_matches('+').to_owned(),
            mtu: 1500,
            sources: addresses.clone(),
            addresses,
            ..LinkFacts::default()
        });
    }
    node
}

impl Node {
    fn route(mut self, link: &str, kind: RouteKind) -> Self {
        self = self.route6(link, kind, Family::V4);
        self
    }

    fn route6(mut self, link: &str, kind: RouteKind, family: Family) -> Self {
        let link = self.0.links.iter().find(|known| known.name == link).unwrap().index;
        self.0.routes.insert(RouteFacts { link, family, kind });
        self
    }

    fn direct(self, links: &[&str]) -> Self {
        links.iter().fold(self, |node, link| node.route(link, RouteKind::Direct))
    }

    fn classify(&self, addresses: &[&str], uplinks: &str) -> Topology {
        let addresses: Vec<_> = addresses.iter().map(|text| address(text)).collect();
        classify(&self.0, &addresses, &uplinks.parse().unwrap())
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
fn expect(topology: &Topology, expected: &[(&str, LinkRole)]) {
    let roles: Vec<_> = topology.links.iter().map(|link| (link.name.as_str(), link.role)).collect();
    assert_eq!(roles, expected);
}

fn source4(topology: &Topology, name: &str) -> Option<Ipv4Addr> {
    topology.links.iter().find(|link| link.name == name).unwrap().source4
}

#[test]
fn a_veth_for_each_pod_as_in_the_lab() {
    let veth = &["169.254.1.1", "fe80::1"][..];
    let node = node(&[
        ("eth0", "veth", &["172.18.0.2", "fd00:172:18::2"]),
        ("pod-1", "veth", veth),
        ("pod-2", "veth", veth),
    ])
    .route("eth0", RouteKind::Default(0))
    .route6("eth0", RouteKind::Default(1024), Family::V6)
    .direct(&["pod-1", "pod-2"]);
    let topology = node.classify(&["172.18.0.2", "fd00:172:18::2"], "");
    expect(&topology, &[("eth0", Uplink), ("pod-1", Workload), ("pod-2", Workload)]);
    assert_eq!(source4(&topology, "pod-2"), Some(Ipv4Addr::new(172, 18, 0, 2)));
    assert_eq!(topology.primary6, Some("fd00:172:18::2".parse().unwrap()));
    let local: Vec<_> = topology.local_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(local, ["169.254.1.1", "172.18.0.2", "fd00:172:18::2"]);
    assert_eq!(node.classify(&[], ""), topology, "without a Node object");
}

#[test]
fn flannel_with_a_bridge_and_an_overlay() {
    let node = node(&[
        ("eth0", "", &["192.168.1.10"]),
        ("flannel.1", "vxlan", &["10.244.1.0"]),
        ("cni0", "bridge", &["10.244.1.1"]),
        ("veth4a1b", "+veth", &[]),
    ])
    .route("eth0", RouteKind::Default(100))
    .direct(&["eth0", "cni0"])
    .route("flannel.1", RouteKind::Gateway);
    let topology = node.classify(&["192.168.1.10"], "");
    expect(&topology, &[("eth0", Uplink), ("flannel.1", Uplink), ("cni0", Workload), ("veth4a1b", Nothing)]);
    assert_eq!(source4(&topology, "flannel.1"), Some(Ipv4Addr::new(10, 244, 1, 0)), "pods answer there");
    assert_eq!(source4(&topology, "cni0"), Some(Ipv4Addr::new(192, 168, 1, 10)));
}

#[test]
fn calico_with_ipip_and_wireguard() {
    let node = node(&[
        ("ens5", "", &["10.0.0.7"]),
        ("tunl0", "ipip", &["10.244.5.0"]),
        ("wireguard.cali", "wireguard", &["10.244.5.1"]),
        ("cali12ab", "veth", &[]),
    ])
    .route("ens5", RouteKind::Default(0))
    .direct(&["cali12ab", "wireguard.cali"])
    .route("tunl0", RouteKind::Gateway);
    let topology = node.classify(&["10.0.0.7"], "");
    expect(
        &topology,
        &[("ens5", Uplink), ("tunl0", Uplink), ("wireguard.cali", Uplink), ("cali12ab", Workload)],
    );
    assert!(!topology.links[1].ethernet);
}

#[test]
fn kind_with_its_veths() {
    let node = node(&[("vethe1c2", "veth", &["10.244.0.1"]), ("eth0", "veth", &["172.18.0.3"])])
        .route("eth0", RouteKind::Default(0))
        .route("eth0", RouteKind::Gateway)
        .direct(&["eth0", "vethe1c2"]);
    let topology = node.classify(&["172.18.0.3"], "");
    expect(&topology, &[("vethe1c2", Workload), ("eth0", Uplink)]);
    assert_eq!(source4(&topology, "vethe1c2"), Some(Ipv4Addr::new(172, 18, 0, 3)));
}

#[test]
fn a_bond_and_a_vlan_on_it() {
    let node = node(&[
        ("eno1", "+", &[]),
        ("eno2", "+", &[]),
        ("bond0", "bond", &["10.1.0.5"]),
        ("bond0.100", "vlan", &["10.2.0.5"]),
        ("docker0", "bridge", &["172.17.0.1"]),
    ])
    .route("bond0.100", RouteKind::Default(0))
    .direct(&["bond0", "bond0.100", "docker0"]);
    let topology = node.classify(&["10.1.0.5"], "");
    expect(
        &topology,
        &[
            ("eno1", Nothing),
            ("eno2", Nothing),
            ("bond0", Uplink),
            ("bond0.100", Uplink),
            ("docker0", Workload),
        ],
    );
    assert_eq!(source4(&topology, "bond0.100"), Some(Ipv4Addr::new(10, 2, 0, 5)));
    assert_eq!(topology.primary4, Some(Ipv4Addr::new(10, 1, 0, 5)), "the Node object's");
}

#[test]
fn two_uplinks_and_no_node_object() {
    let node = node(&[("eth1", "", &["10.9.0.1"]), ("eth0", "", &["10.8.0.1", "10.8.0.99"])])
        .route("eth1", RouteKind::Default(200))
        .route("eth0", RouteKind::Default(100));
    let topology = node.classify(&[], "");
    expect(&topology, &[("eth1", Uplink), ("eth0", Uplink)]);
    assert_eq!(topology.primary4, Some(Ipv4Addr::new(10, 8, 0, 1)), "of the default route that is taken");
    let topology = node.classify(&["10.8.0.99"], "");
    assert_eq!(source4(&topology, "eth0"), Some(Ipv4Addr::new(10, 8, 0, 99)), "the node's own first");
    assert_eq!(source4(&topology, "eth1"), Some(Ipv4Addr::new(10, 9, 0, 1)));
    assert_eq!(node.classify(&["203.0.113.9"], "").primary4, Some(Ipv4Addr::new(10, 8, 0, 1)), "on no link");
}

#[test]
fn only_ipv6() {
    let node = node(&[("eth0", "", &["2001:db8::5", "fe80::5"]), ("lxc1", "veth", &["fe80::6"])])
        .route6("eth0", RouteKind::Default(1024), Family::V6)
        .route6("lxc1", RouteKind::Direct, Family::V6);
    let topology = node.classify(&["2001:db8::5"], "");
    expect(&topology, &[("eth0", Uplink), ("lxc1", Workload)]);
    assert_eq!((topology.primary4, source4(&topology, "lxc1")), (None, None));
    assert_eq!(topology.links[1].source6, Some("2001:db8::5".parse().unwrap()));
    assert_eq!(topology.local_addresses, [address("2001:db8::5")]);
}

#[test]
fn what_is_down_or_leads_nowhere_has_no_role() {
    let mut node =
        node(&[("eth0", "", &["10.0.0.1"]), ("dummy0", "dummy", &["169.254.20.10"]), ("veth0", "veth", &[])])
            .direct(&["veth0"]);
    for link in &mut node.0.links {
        link.up = false;
    }
    let topology = node.classify(&["10.0.0.1"], "");
    expect(&topology, &[("eth0", Uplink), ("dummy0", Nothing), ("veth0", Nothing)]);
}

#[test]
fn the_addresses_of_kube_proxy_in_ipvs_mode_are_not_the_nodes() {
    let node = node(&[("eth0", "", &["10.0.0.1"]), ("kube-ipvs0", "dummy", &["10.96.0.1", "203.0.113.7"])])
        .route("eth0", RouteKind::Default(0));
    let topology = node.classify(&["10.0.0.1", "203.0.113.7"], "");
    expect(&topology, &[("eth0", Uplink), ("kube-ipvs0", Nothing)]);
    assert_eq!(topology.local_addresses, [address("10.0.0.1")]);
}

#[test]
fn named_uplinks_are_the_only_ones() {
    let node = node(&[("eth0", "", &["10.0.0.1"]), ("eth1", "", &["10.0.1.1"]), ("ens7", "+", &[])])
        .route("eth0", RouteKind::Default(0))
        .direct(&["eth0", "eth1"]);
    let topology = node.classify(&["10.0.0.1"], "eth1,ens*");
    expect(&topology, &[("eth0", Workload), ("eth1", Uplink), ("ens7", Uplink)]);
}
