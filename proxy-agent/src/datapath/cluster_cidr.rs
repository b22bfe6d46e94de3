use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The networks of the cluster's pods, at most one of each family: kube-proxy's `clusterCIDR`, with which the mode
/// `ClusterCIDR` of its local detector tells pods from others (KUBE-PROXY.md 1.6). By default there are none.
///
/// A packet that comes in by an uplink from one of them is a pod's of another node. Pods of this node are known by their
/// links, so the mode `NodeCIDR` has nothing to say here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterCidr {
    /// Of IPv4.
    pub v4: Option<Ipv4Net>,
    /// Of IPv6.
    pub v6: Option<Ipv6Net>,
}

impl ClusterCidr {
    /// Network and mask as the programs compare them, words in network order. Where there is none: a network that no
    /// address is under its mask.
    pub(crate) fn words4(&self) -> [u32; 2] {
        self.v4.map_or([1, 0], |net| {
            [net.network(), net.netmask()].map(|address| u32::from_ne_bytes(address.octets()))
        })
    }

    /// As [`Self::words4`], four words each.
    pub(crate) fn words6(&self) -> [u32; 8] {
        self.v6.map_or([1, 0, 0, 0, 0, 0, 0, 0], |net| {
            bytemuck::cast([net.network(), net.netmask()].map(|address| address.octets()))
        })
    }
}

/// A network, or one of each family with a comma between them; nothing for none.
impl FromStr for ClusterCidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cidr = Self::default();
        for part in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            let net: IpNet = part
                .parse()
                .map_err(|_| format!("{part:?} is not a network: write one such as 10.244.0.0/16"))?;
            let taken = match net.trunc() {
                IpNet::V4(net) => cidr.v4.replace(net).is_some(),
                IpNet::V6(net) => cidr.v6.replace(net).is_some(),
            };
            if taken {
                return Err(format!("{text:?} has two networks of one family: give one, or one of each"));
            }
        }
        Ok(cidr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_family_at_most() {
        let parse = |text: &str| text.parse::<ClusterCidr>();
        assert_eq!(parse(""), Ok(ClusterCidr::default()));
        let both = parse("fd00:10:244::/48, 10.244.3.1/16").unwrap();
        assert_eq!(both.v4, Some("10.244.0.0/16".parse().unwrap()));
        assert_eq!(both.v6, Some("fd00:10:244::/48".parse().unwrap()));
        assert_eq!(parse("10.0.0.0/8").unwrap().v6, None);
        for text in
            ["10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8,", "10.0.0.0", "pods", "fd00::/8,10.0.0.0/8,fd01::/16"]
        {
            parse(text).expect_err(text);
        }
    }

    #[test]
    fn words_are_what_the_programs_compare() {
        let is_in = |cidr: ClusterCidr, address: [u8; 4]| {
            let [network, mask] = cidr.words4();
            u32::from_ne_bytes(address) & mask == network
        };
        let pods = ClusterCidr { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None };
        assert!(is_in(pods, [10, 244, 255, 1]) && !is_in(pods, [10, 245, 0, 1]));
        let everywhere = ClusterCidr { v4: Some("0.0.0.0/0".parse().unwrap()), v6: None };
        assert!(is_in(everywhere, [192, 0, 2, 1]));
        for address in [[0; 4], [1, 0, 0, 0], [0, 0, 0, 1], [255; 4]] {
            assert!(!is_in(ClusterCidr::default(), address), "{address:?}");
        }
        let pods = ClusterCidr { v4: None, v6: Some("fd00:10::/32".parse().unwrap()) };
        assert_eq!(
            pods.words6(),
            bytemuck::cast::<_, [u32; 8]>([
                "fd00:10::".parse::<std::net::Ipv6Addr>().unwrap().octets(),
                "ffff:ffff::".parse::<std::net::Ipv6Addr>().unwrap().octets(),
            ])
        );
        let [network, _, _, _, mask, ..] = ClusterCidr::default().words6();
        assert!(network != 0 && mask == 0, "no address is there");
    }
}
