use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use proxy_common::Family;
use thiserror::Error;

use crate::state::{Node, family_of, parse_net};

/// Processes of the node itself may use these for node ports; packets never carry them between machines.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Which of the node's addresses serve node ports (KUBE-PROXY.md 1.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every address of the node, and the loopback addresses.
    #[default]
    All,
    /// The first address of each family in the Node object. A family without an address has no node ports:
    /// where kube-proxy serves them on every address then, this fails closed.
    Primary,
    /// The addresses inside these networks. As with kube-proxy, a list without any network of a family, or
    /// with a /0 of it, leaves that family unrestricted; but a loopback address is never meant unless a network
    /// has it inside.
    Cidrs(Vec<IpNet>),
}

/// A list of node port addresses that is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodePortAddressesError {
    /// An entry is not a network.
    #[error(
        "{0:?} is not a network in CIDR notation: give networks such as 192.0.2.0/24, separated by commas, or the \
         single word primary"
    )]
    NotANetwork(String),
    /// `primary` among networks.
    #[error("primary is a setting of its own: it cannot be in a list with others")]
    PrimaryInList,
}

impl NodePortAddresses {
    /// The addresses that serve node ports, each once. `local` are those on the node's links; until they are
    /// known, the addresses of the Node object stand for them.
    #[must_use]
    pub fn of(&self, node: Option<&Node>, local: Option<&[IpAddr]>) -> Vec<IpAddr> {
        let of_node = node.map_or(&[][..], |node| &node.addresses);
        let known = match self {
            Self::Primary => of_node,
            Self::All | Self::Cidrs(_) => local.unwrap_or(of_node),
        };
        let mut accepted: Vec<IpAddr> = Vec::new();
        for address in known.iter().copied() {
            if address.is_loopback() || accepted.contains(&address) {
                continue;
            }
            let accept = match self {
                Self::All => true,
                Self::Primary => !accepted.iter().any(|first| family_of(*first) == family_of(address)),
                Self::Cidrs(cidrs) => Self::is_inside(cidrs, address),
            };
            if accept {
                accepted.push(address);
            }
        }
        accepted.extend(LOOPBACK.into_iter().filter(|address| self.accepts_loopback(*address)));
        accepted
    }

    /// Where to listen, given the addresses that serve node ports: on these, or on the wildcard address of each
    /// family that is not restricted (KUBE-PROXY.md 1.12).
    pub(super) fn listening(&self, served: &[IpAddr]) -> Vec<IpAddr> {
        let wildcards = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let mut listening: Vec<IpAddr> =
            wildcards.into_iter().filter(|wildcard| self.is_open(family_of(*wildcard))).collect();
        listening.extend(served.iter().filter(|address| !self.is_open(family_of(**address))));
        listening
    }

    /// Whether every address of a family is accepted.
    fn is_open(&self, family: Family) -> bool {
        match self {
            Self::All => true,
            Self::Primary => false,
            Self::Cidrs(cidrs) => {
                let mut of_family = cidrs.iter().filter(|cidr| family_of(cidr.addr()) == family).peekable();
                of_family.peek().is_none() || of_family.any(|cidr| cidr.prefix_len() == 0)
            }
        }
    }

    fn is_inside(cidrs: &[IpNet], address: IpAddr) -> bool {
        let mut of_family =
            cidrs.iter().filter(|cidr| family_of(cidr.addr()) == family_of(address)).peekable();
        of_family.peek().is_none() || of_family.any(|cidr| cidr.contains(&address))
    }

    fn accepts_loopback(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Primary => false,
            Self::Cidrs(cidrs) => cidrs.iter().any(|cidr| cidr.contains(&address)),
        }
    }

    /// Why none of `addresses` serves node ports of `family`, for the operator; `None` when one does, or when
    /// that is what was asked for.
    pub(super) fn why_none(&self, addresses: &[IpAddr], family: Family, links_known: bool) -> Option<String> {
        // On loopback alone they are served only where a network says so.
        let counts = |address: &IpAddr| matches!(self, Self::Cidrs(_)) || !address.is_loopback();
        if addresses.iter().any(|address| family_of(*address) == family && counts(address)) {
            return None;
        }
        let family = family.name();
        let place = match self {
            Self::All | Self::Cidrs(_) if links_known => "this node",
            _ => "status.addresses",
        };
        let cause = match self {
            Self::Cidrs(_) => "no address inside the networks that node ports are limited to",
            Self::All | Self::Primary => "no address",
        };
        let except = if *self == Self::All { ", loopback apart," } else { "" };
        Some(format!(
            "{place} has {cause} of family {family}: {family} node ports are not served on this node{except} until \
             it has one"
        ))
    }
}

/// As kube-proxy's `--nodeport-addresses`: networks separated by commas, or `primary`. Nothing is the default.
impl FromStr for NodePortAddresses {
    type Err = NodePortAddressesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const PRIMARY: &str = "primary";
        match text {
            "" => return Ok(Self::All),
            PRIMARY => return Ok(Self::Primary),
            _ => {}
        }
        let network = |entry: &str| match parse_net(entry) {
            Some(network) => Ok(network),
            None if entry == PRIMARY => Err(NodePortAddressesError::PrimaryInList),
            None => Err(NodePortAddressesError::NotANetwork(entry.to_owned())),
        };
        text.split(',').map(network).collect::<Result<_, _>>().map(Self::Cidrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn node(texts: &[&str]) -> Node {
        Node { addresses: addresses(texts), ..Node::default() }
    }

    fn cidrs(texts: &[&str]) -> NodePortAddresses {
        NodePortAddresses::Cidrs(texts.iter().map(|text| text.parse().expect("a network")).collect())
    }

    const DUAL: &[&str] = &["192.0.2.1", "fd00::1", "203.0.113.1", "2001:db8::1"];
    const DUAL_AND_LOOPBACK: &[&str] =
        &["192.0.2.1", "fd00::1", "203.0.113.1", "2001:db8::1", "127.0.0.1", "::1"];

    /// Rows of the table in KUBE-PROXY.md 1.8, for a node whose links are not known, or have what its object
    /// has.
    #[test]
    fn addresses_by_setting() {
        use NodePortAddresses::{All, Primary};
        let rows: &[(&str, NodePortAddresses, &[&str], &[&str])] = &[
            ("unset", All, DUAL, DUAL_AND_LOOPBACK),
            ("primary", Primary, DUAL, &["192.0.2.1", "fd00::1"]),
            ("primary, one family known, fails closed", Primary, &["192.0.2.1"], &["192.0.2.1"]),
            ("primary, nothing known", Primary, &[], &[]),
            ("primary skips loopback", Primary, &["127.0.0.1", "192.0.2.1"], &["192.0.2.1"]),
            ("list", cidrs(&["203.0.113.0/24", "2001:db8::/32"]), DUAL, &["203.0.113.1", "2001:db8::1"]),
            (
                "list of one family leaves the other open, but for loopback",
                cidrs(&["203.0.113.0/24"]),
                DUAL,
                &["fd00::1", "203.0.113.1", "2001:db8::1"],
            ),
            ("a /0 is every address", cidrs(&["0.0.0.0/0", "::/0"]), DUAL, DUAL_AND_LOOPBACK),
            (
                "a /0 of one family",
                cidrs(&["0.0.0.0/0", "fd00::/16"]),
                &["192.0.2.1"],
                &["192.0.2.1", "127.0.0.1"],
            ),
            ("an empty list", cidrs(&[]), DUAL, DUAL),
            ("a list that none is inside", cidrs(&["10.0.0.0/8", "fc00::/16"]), DUAL, &[]),
            (
                "a list with loopback inside",
                cidrs(&["127.0.0.0/8", "::1/128", "203.0.113.0/24"]),
                DUAL,
                &["203.0.113.1", "127.0.0.1", "::1"],
            ),
            ("loopback once", All, &["127.0.0.1", "::1", "192.0.2.1"], &["192.0.2.1", "127.0.0.1", "::1"]),
            ("each once", All, &["192.0.2.1", "192.0.2.1"], &["192.0.2.1", "127.0.0.1", "::1"]),
        ];
        for (what, setting, known, expected) in rows {
            let (known, expected) = (node(known), addresses(expected));
            assert_eq!(setting.of(Some(&known), None), expected, "{what}");
            assert_eq!(setting.of(Some(&known), Some(&known.addresses)), expected, "{what}, on links");
        }
        for (setting, expected) in [
            (All, addresses(&["127.0.0.1", "::1"])),
            (Primary, Vec::new()),
            (cidrs(&["0.0.0.0/0"]), addresses(&["127.0.0.1"])),
        ] {
            assert_eq!(setting.of(None, None), expected, "{setting:?} with nothing known");
        }
    }

    /// An address counts where it is on a link; the Node object may name others, and lack some.
    #[test]
    fn addresses_of_links_count_but_for_primary() {
        use NodePortAddresses::{All, Primary};
        let object = node(&["192.0.2.1", "198.51.100.7"]);
        let links = addresses(&["10.0.0.9", "192.0.2.1"]);
        for (setting, expected) in [
            (All, &["10.0.0.9", "192.0.2.1", "127.0.0.1", "::1"][..]),
            (Primary, &["192.0.2.1"]),
            (cidrs(&["10.0.0.0/8"]), &["10.0.0.9"]),
            (cidrs(&["198.51.100.0/24"]), &[]),
        ] {
            assert_eq!(setting.of(Some(&object), Some(&links)), addresses(expected), "{setting:?}");
            assert_eq!(
                setting.of(None, Some(&links)),
                if setting == Primary { Vec::new() } else { addresses(expected) },
                "{setting:?} without a Node object"
            );
        }
        assert_eq!(All.of(Some(&object), Some(&[])), addresses(&["127.0.0.1", "::1"]), "none on any link");
    }

    #[test]
    fn lists_are_read_as_kube_proxy_reads_them() {
        use NodePortAddresses::{All, Primary};
        for (text, expected) in [
            ("", All),
            ("primary", Primary),
            ("192.0.2.0/24", cidrs(&["192.0.2.0/24"])),
            ("192.0.2.7/24,fd00::/8", cidrs(&["192.0.2.0/24", "fd00::/8"])),
            ("0.0.0.0/0", cidrs(&["0.0.0.0/0"])),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text:?}");
        }
        for (text, said) in [
            ("192.0.2.1", "\"192.0.2.1\" is not a network"),
            ("192.0.2.0/24,", "\"\" is not a network"),
            ("192.0.2.0/33", "\"192.0.2.0/33\" is not a network"),
            ("all", "\"all\" is not a network"),
            ("primary,192.0.2.0/24", "primary is a setting of its own"),
            ("192.0.2.0/24,primary", "primary is a setting of its own"),
        ] {
            let error = text.parse::<NodePortAddresses>().expect_err(text).to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_family_without_an_address_is_explained() {
        use NodePortAddresses::{All, Primary};
        for (setting, links_known, parts) in [
            (All, true, Some(["this node has no address", "loopback apart"])),
            (All, false, Some(["status.addresses has no address", "loopback apart"])),
            (Primary, true, Some(["status.addresses has no address", "not served on this node until"])),
            (cidrs(&["10.0.0.0/8", "fd00::/8"]), true, Some(["this node has no address inside", "IPv6"])),
            (cidrs(&["10.0.0.0/8", "::1/128"]), true, None),
        ] {
            let links = addresses(&["10.0.0.9"]);
            let served = setting.of(Some(&node(&["10.0.0.9"])), Some(&links));
            let said = setting.why_none(&served, Family::V6, links_known);
            assert_eq!(said.is_some(), parts.is_some(), "{setting:?}: {said:?}");
            for part in parts.into_iter().flatten() {
                assert!(said.as_ref().is_some_and(|said| said.contains(part)), "{part}: {said:?}");
            }
            assert_eq!(setting.why_none(&served, Family::V4, links_known), None);
        }
    }
}
