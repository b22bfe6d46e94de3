use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::LinkRole;

/// The links of the node with their roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// All but loopback, by index.
    pub links: Vec<Link>,
    /// The node's own address for links that have none: that of its Node object, as a rule.
    pub primary4: Option<Ipv4Addr>,
    /// As [`Self::primary4`], for IPv6.
    pub primary6: Option<Ipv6Addr>,
    /// Every address on which the node may be asked for a node port: neither loopback nor IPv6 link-local,
    /// and none of those that kube-proxy in IPVS mode has put on its own link. Sorted.
    pub local_addresses: Vec<IpAddr>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// What it leads to.
    pub role: LinkRole,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Source of what is sent out there in a client's place.
    pub source4: Option<Ipv4Addr>,
    /// As [`Self::source4`], for IPv6.
    pub source6: Option<Ipv6Addr>,
    /// Frames on it have Ethernet headers: the packet programs understand no others.
    pub ethernet: bool,
    /// There are VLANs on it, and an XDP program would not see which frames are theirs.
    pub hides_tags: bool,
    /// Bytes.
    pub mtu: u32,
}

impl Topology {
    /// Links of a role.
    pub fn of_role(&self, role: LinkRole) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| link.role == role)
    }
}
