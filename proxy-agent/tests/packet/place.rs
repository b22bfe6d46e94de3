//! The node that the programs are told about: links, addresses, routes and neighbours in a network namespace
//! of the test's own, and the same as a plain table for the model.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use ipnet::IpNet;
use proxy_common::{Family, LinkRole};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

/// A link of the node.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
    /// As `LINKS` has it; [`LinkRole::None`] for a link that `LINKS` does not know.
    pub(crate) role: LinkRole,
    /// Source address of what is sent out there in a client's place; unspecified when there is none.
    pub(crate) masquerade4: Ipv4Addr,
    pub(crate) masquerade6: Ipv6Addr,
    /// Whether XDP may redirect to it.
    pub(crate) xdp: bool,
    /// Whether XDP has seen what TC sees.
    pub(crate) xdp_first: bool,
    pub(crate) mtu: usize,
}

/// Where the routing table sends an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the node itself.
    Local,
    /// Nowhere.
    None,
    /// Out of the link of this index, to the neighbour with this address.
    Link { index: u32, mac: [u8; 6] },
}

/// The node.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) links: Vec<Link>,
    routes: Vec<(IpNet, Way)>,
}

/// Addresses of the node, the primary ones first.
pub(crate) const NODE4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(198, 51, 100, 10)];
pub(crate) const NODE6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10)];

/// Where the cluster's pods are.
pub(crate) const CLUSTER: [&str; 2] = ["10.244.0.0/16", "fd00:244::/32"];

/// `up0` and `up1` have addresses of their own; `tun0` is an overlay without one; `bare0` has none to lend
/// either; `pod3` is so new that `LINKS` does not know it.
const LINKS: [(&str, LinkRole, usize); 7] = [
    ("up0", LinkRole::Uplink, 1500),
    ("up1", LinkRole::Uplink, 1500),
    ("tun0", LinkRole::Uplink, 1400),
    ("bare0", LinkRole::Uplink, 1500),
    ("pod1", LinkRole::Workload, 1500),
    ("pod2", LinkRole::Workload, 1500),
    ("pod3", LinkRole::None, 1500),
];

/// Destination, link, gateway; longest prefixes first. The neighbour is the gateway or the destination itself.
const ROUTES: [(&str, &str, Option<&str>); 28] = [
    ("192.0.2.10/32", "local", None),
    ("198.51.100.10/32", "local", None),
    ("10.244.1.1/32", "pod1", None),
    ("10.244.1.2/32", "pod2", None),
    ("10.244.1.3/32", "pod3", None),
    ("192.0.2.1/32", "up0", None),
    ("192.0.2.20/32", "up0", None),
    ("192.0.2.21/32", "up0", None),
    ("198.51.100.2/32", "up1", None),
    ("10.244.2.0/24", "up1", Some("198.51.100.2")),
    ("10.244.3.0/24", "tun0", Some("198.51.100.66")),
    ("10.244.5.0/24", "bare0", Some("198.51.100.77")),
    ("10.244.9.0/24", "unreachable", None),
    ("0.0.0.0/0", "up0", Some("192.0.2.1")),
    ("2001:db8:1::10/128", "local", None),
    ("2001:db8:2::10/128", "local", None),
    ("fd00:244:1::1/128", "pod1", None),
    ("fd00:244:1::2/128", "pod2", None),
    ("fd00:244:1::3/128", "pod3", None),
    ("2001:db8:1::1/128", "up0", None),
    ("2001:db8:1::20/128", "up0", None),
    ("2001:db8:1::21/128", "up0", None),
    ("2001:db8:2::2/128", "up1", None),
    ("fd00:244:2::/64", "up1", Some("2001:db8:2::2")),
    ("fd00:244:3::/64", "tun0", Some("2001:db8:2::66")),
    ("fd00:244:5::/64", "bare0", Some("2001:db8:2::77")),
    ("fd00:244:9::/64", "unreachable", None),
    ("::/0", "up0", Some("2001:db8:1::1")),
];

impl Place {
    /// Lays the links in the calling thread's network namespace, which must be its own.
    pub(crate) fn lay() -> Self {
        let sysctl = |key: &str, value: &str| fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
        // No traffic but the test's: no link-local addresses, no router solicitations.
        sysctl("ipv6/conf/default/addr_gen_mode", "1");
        sysctl("ipv6/conf/default/accept_dad", "0");
        let mut script = String::from("link set lo up\n");
        for (at, (name, _, mtu)) in LINKS.iter().enumerate() {
            let mac = text(link_mac(at));
            script += &format!("link add {name} address {mac} mtu {mtu} type veth peer name {name}p\n");
            script += &format!("link set {name}p up\nlink set {name} up\n");
        }
        for (at, (v4, v6)) in NODE4.iter().zip(NODE6).enumerate() {
            script += &format!("address add {v4}/32 dev up{at}\naddress add {v6}/128 dev up{at} nodad\n");
        }
        for (destination, link, gateway) in &ROUTES {
            script += &match (*link, gateway) {
                ("local", _) => String::new(),
                ("unreachable", _) => format!("route add unreachable {destination}\n"),
                (link, None) => format!("route add {destination} dev {link}\n"),
                (link, Some(gateway)) => {
                    format!("route add {destination} via {gateway} dev {link} onlink\n")
                }
            };
            if let Some(neighbour) = neighbour(destination, link, *gateway) {
                let mac = text(neighbour_mac(neighbour));
                script += &format!("neighbor replace {neighbour} lladdr {mac} dev {link} nud permanent\n");
            }
        }
        ip(&script);
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv6/conf/all/forwarding", "1");
        Self::read()
    }

    fn read() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        let links: Vec<Link> = LINKS
            .iter()
            .enumerate()
            .map(|(at, (name, role, mtu))| Link {
                name,
                index: name_to_index(&socket, name).unwrap(),
                mac: link_mac(at),
                role: *role,
                masquerade4: match *name {
                    "up1" => NODE4[1],
                    "bare0" => Ipv4Addr::UNSPECIFIED,
                    _ => NODE4[0],
                },
                masquerade6: match *name {
                    "up1" => NODE6[1],
                    "bare0" => Ipv6Addr::UNSPECIFIED,
                    _ => NODE6[0],
                },
                xdp: matches!(*name, "up0" | "up1"),
                xdp_first: *name == "up1",
                mtu: *mtu,
            })
            .collect();
        let routes = ROUTES
            .iter()
            .map(|(destination, link, gateway)| {
                let way = match *link {
                    "local" => Way::Local,
                    "unreachable" => Way::None,
                    _ => {
                        let index = links.iter().find(|known| known.name == *link).unwrap().index;
                        let neighbour = neighbour(destination, link, *gateway).unwrap();
                        Way::Link { index, mac: neighbour_mac(neighbour) }
                    }
                };
                (destination.parse().unwrap(), way)
            })
            .collect();
        Self { links, routes }
    }

    /// Where the routing table sends `destination`.
    pub(crate) fn way(&self, destination: IpAddr) -> Way {
        self.routes.iter().find(|(network, _)| network.contains(&destination)).unwrap().1
    }

    pub(crate) fn link(&self, index: u32) -> &Link {
        self.links.iter().find(|link| link.index == index).unwrap()
    }

    pub(crate) fn named(&self, name: &str) -> &Link {
        self.links.iter().find(|link| link.name == name).unwrap()
    }
}

impl Link {
    /// Where packets of this link come from and go to; a link that `LINKS` does not know leads to a pod.
    pub(crate) fn leads_to(&self) -> LinkRole {
        if self.role == LinkRole::None { LinkRole::Workload } else { self.role }
    }

    /// Source address of what is sent out there in a client's place.
    pub(crate) fn masquerade(&self, family: Family) -> Option<IpAddr> {
        let address: IpAddr =
            if family == Family::V4 { self.masquerade4.into() } else { self.masquerade6.into() };
        (!address.is_unspecified()).then_some(address)
    }
}

/// Whether an address is a pod's.
pub(crate) fn is_in_cluster(address: IpAddr) -> bool {
    CLUSTER.iter().any(|network| network.parse::<IpNet>().unwrap().contains(&address))
}

/// Whether an address is one of the node's own.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => NODE4.contains(&address),
        IpAddr::V6(address) => NODE6.contains(&address),
    }
}

fn link_mac(at: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, u8::try_from(at).unwrap()]
}

/// The neighbour that packets to a destination are given to.
fn neighbour(destination: &str, link: &str, gateway: Option<&str>) -> Option<IpAddr> {
    if matches!(link, "local" | "unreachable") {
        return None;
    }
    let (address, _) = destination.split_once('/').unwrap();
    Some(gateway.unwrap_or(address).parse().unwrap())
}

/// Tells neighbours apart by the last group of their address, and the families by the byte before.
fn neighbour_mac(neighbour: IpAddr) -> [u8; 6] {
    match neighbour {
        IpAddr::V4(address) => {
            let [_, _, third, last] = address.octets();
            [2, 0, 0, 4, third, last]
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            [2, 0, 0, 6, octets[5], octets[15]]
        }
    }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(script: &str) {
    let mut ip =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("needs iproute2");
    ip.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "laying the links");
}
