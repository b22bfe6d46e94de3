//! Addresses of the lab, derived from ids so that a reader can tell at a glance who is who.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// The two addresses that every place of the lab has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// `10.244.<node>.<pod>` and `fd00:10:244:<node>::<pod>`.
    pub(crate) fn pod(node: u8, pod: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 244, node, pod),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, pod.into()),
        }
    }

    /// `172.18.0.<node>` and `fd00:172:18::<node>`.
    pub(super) fn node(node: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(172, 18, 0, node),
            v6: Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, node.into()),
        }
    }

    /// What a node has on its second link: `172.19.0.<node>` and `fd00:172:19::<node>`.
    pub(super) fn node_again(node: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(172, 19, 0, node),
            v6: Ipv6Addr::new(0xfd00, 0x172, 0x19, 0, 0, 0, 0, node.into()),
        }
    }

    /// The router between the nodes: `172.18.0.254` and `fd00:172:18::fe`.
    pub(super) fn router() -> Self {
        Self::node(254)
    }

    /// A client outside the cluster: `192.168.77.<id>` and `fd00:192:168::<id>`.
    pub(super) fn outside(id: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(192, 168, 77, id),
            v6: Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, id.into()),
        }
    }

    /// The address of the family of `like`.
    #[must_use]
    pub fn like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// The addresses that one end of a wire uses for the other as its gateway. Only the wire knows them.
#[derive(Clone, Copy)]
pub(super) struct Gateway {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

impl Gateway {
    /// A node, as its pods see it.
    pub(super) const OF_PODS: Self =
        Self { v4: Ipv4Addr::new(169, 254, 1, 1), v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1) };

    /// The router, as nodes see it: not the address a node has itself towards its pods.
    pub(super) const OF_NODES: Self =
        Self { v4: Ipv4Addr::new(169, 254, 0, 1), v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe) };
}

/// The same IPv4 destination as an IPv6 socket names it: `::ffff:a.b.c.d`.
#[must_use]
pub fn mapped(to: SocketAddrV4) -> SocketAddr {
    SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_the_node_and_the_pod() {
        let pod = Addresses::pod(2, 7);
        assert_eq!(pod.v4.to_string(), "10.244.2.7");
        assert_eq!(pod.v6.to_string(), "fd00:10:244:2::7");
        assert_eq!(Addresses::node(3).v4.to_string(), "172.18.0.3");
        assert_eq!(Addresses::node(3).v6.to_string(), "fd00:172:18::3");
    }
}
