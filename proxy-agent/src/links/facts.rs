use std::{collections::BTreeSet, net::IpAddr};

use proxy_common::Family;

/// What the kernel says about the links of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every link, by index.
    pub links: Vec<LinkFacts>,
    /// What routes there are, each kind once a link: a node with a million routes is no larger than others.
    pub routes: BTreeSet<RouteFacts>,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// The namespace's own loopback.
    pub loopback: bool,
    /// Frames on it have Ethernet headers (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// A part of another link, which has the addresses and the routes: of a bridge, a bond, a team or a switch.
    pub enslaved: bool,
    /// What it is by its driver (`veth`, `vxlan`); empty for a physical link.
    pub kind: String,
    /// Of a VLAN: index of the link that its frames go over with a tag, if that is in this namespace as well.
    pub parent: Option<u32>,
    /// It takes the tags off the frames that come in, before XDP programs see them (the offload `rx-vlan-offload`). Looked
    /// at only where there are VLANs on the link.
    pub hides_tags: bool,
    /// Bytes.
    pub mtu: u32,
    /// Every address that packets are taken in for, in the kernel's order.
    pub addresses: Vec<IpAddr>,
    /// Those of them to send from: of global scope, neither deprecated nor temporary.
    pub sources: Vec<IpAddr>,
}

/// That a link has routes of a kind. Left out: local ones, those to link-local and multicast destinations,
/// which every link has, and those that refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteFacts {
    /// Interface index.
    pub link: u32,
    /// Of the destination.
    pub family: Family,
    /// Where it leads.
    pub kind: RouteKind,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Destinations on the link itself.
    Direct,
    /// Destinations behind a gateway.
    Gateway,
    /// All destinations, with this metric: the least one is taken.
    Default(u32),
}
