use std::net::IpAddr;

use ipnet::IpNet;
use proxy_common::Family;

use crate::state::{Node, family_of};

/// Which of the node's addresses serve node ports (KUBE-PROXY.md 1.8). Loopback addresses never do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every address of the Node object.
    #[default]
    All,
    /// The first address of each family. A family without an address has no node ports: where kube-proxy
    /// serves them on every address then, this fails closed.
    Primary,
    /// The addresses inside these networks. As with kube-proxy, a list without any network of a family, or
    /// with a /0 of it, leaves that family unrestricted.
    Cidrs(Vec<IpNet>),
}

impl NodePortAddresses {
    /// The addresses of `node` that serve node ports, each once; none without a Node object.
    #[must_use]
    pub fn of(&self, node: Option<&Node>) -> Vec<IpAddr> {
        let mut accepted: Vec<IpAddr> = Vec::new();
        for address in node.iter().flat_map(|node| &node.addresses).copied() {
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
        accepted
    }

    fn is_inside(cidrs: &[IpNet], address: IpAddr) -> bool {
        let mut of_family =
            cidrs.iter().filter(|cidr| family_of(cidr.addr()) == family_of(address)).peekable();
        of_family.peek().is_none() || of_family.any(|cidr| cidr.contains(&address))
    }

    /// Why no node port of `family` is served, for the operator.
    pub(super) fn why_none(&self, family: Family) -> String {
        let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
        let cause = match self {
            Self::Cidrs(_) => "no address inside the networks that node ports are limited to",
            Self::All | Self::Primary => "no address",
        };
        format!(
            "status.addresses has {cause} of family {family}: {family} node ports are not served on this node \
             until it has one"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(addresses: &[&str]) -> Node {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        Node { addresses, ..Node::default() }
    }

    fn cidrs(texts: &[&str]) -> NodePortAddresses {
        NodePortAddresses::Cidrs(texts.iter().map(|text| text.parse().expect("a network")).collect())
    }

    const DUAL: &[&str] = &["192.0.2.1", "fd00::1", "203.0.113.1", "2001:db8::1"];

    /// Rows of the table in KUBE-PROXY.md 1.8.
    #[test]
    fn addresses_by_setting() {
        use NodePortAddresses::{All, Primary};
        let rows: &[(&str, NodePortAddresses, &[&str], &[&str])] = &[
            ("unset", All, DUAL, DUAL),
            ("primary", Primary, DUAL, &["192.0.2.1", "fd00::1"]),
            ("primary, one family known, fails closed", Primary, &["192.0.2.1"], &["192.0.2.1"]),
            ("primary, nothing known", Primary, &[], &[]),
            ("primary skips loopback", Primary, &["127.0.0.1", "192.0.2.1"], &["192.0.2.1"]),
            ("list", cidrs(&["203.0.113.0/24", "2001:db8::/32"]), DUAL, &["203.0.113.1", "2001:db8::1"]),
            (
                "list of one family leaves the other open",
                cidrs(&["203.0.113.0/24"]),
                DUAL,
                &["fd00::1", "203.0.113.1", "2001:db8::1"],
            ),
            ("a /0 is every address", cidrs(&["0.0.0.0/0", "::/0"]), DUAL, DUAL),
            ("an empty list", cidrs(&[]), DUAL, DUAL),
            ("a list that none is inside", cidrs(&["10.0.0.0/8", "fc00::/16"]), DUAL, &[]),
            ("loopback never", All, &["127.0.0.1", "::1", "192.0.2.1"], &["192.0.2.1"]),
            ("each once", All, &["192.0.2.1", "192.0.2.1"], &["192.0.2.1"]),
        ];
        for (what, setting, addresses, expected) in rows {
            assert_eq!(setting.of(Some(&node(addresses))), node(expected).addresses, "{what}");
        }
        for setting in [All, Primary, cidrs(&["0.0.0.0/0"])] {
            assert_eq!(setting.of(None), [] as [IpAddr; 0], "{setting:?} without a Node");
        }
    }
}
