use std::net::IpAddr;

use ipnet::IpNet;
use proxy_common::Family;

/// The family of an address.
pub(crate) fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// Reads an address as the Kubernetes API has always taken it: octets of an IPv4 address may have leading
/// zeros and are decimal all the same (KEP-4858); an IPv4-mapped IPv6 address is the IPv4 address.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().or_else(|_| without_leading_zeros(text).parse());
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

/// Reads a network in CIDR notation, with the same tolerance as [`parse_ip`]; host bits are masked.
pub(crate) fn parse_net(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().or_else(|_| without_leading_zeros(address).parse()).ok()?;
    // `parse` alone would take "+8" and "008".
    if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    IpNet::new(address, prefix.parse().ok()?).ok().map(|net| net.trunc())
}

fn without_leading_zeros(text: &str) -> String {
    let (head, dotted) = match text.rfind(':') {
        Some(colon) => text.split_at(colon + 1),
        None => ("", text),
    };
    let octets: Vec<&str> = dotted
        .split('.')
        .map(|octet| match octet.trim_start_matches('0') {
            "" if !octet.is_empty() => "0",
            stripped => stripped,
        })
        .collect();
    if octets.len() == 4 { format!("{head}{}", octets.join(".")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_the_api_takes_them() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.08", Some("10.0.0.8")),
            ("fd00:0:0::01", Some("fd00::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::ffff:010.0.0.01", Some("10.0.0.1")),
            ("", None),
            (" 10.0.0.1", None),
            ("10.0.0", None),
            ("10.0.0.256", None),
            ("10..0.1", None),
            ("0x0a.0.0.1", None),
            ("example.org", None),
            ("fe80::1%eth0", None),
        ] {
            let expected = expected.map(|text| text.parse::<IpAddr>().expect("a literal"));
            assert_eq!(parse_ip(text), expected, "{text:?}");
        }
    }

    #[test]
    fn networks_are_masked() {
        for (text, expected) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.1.2.3/32", Some("10.1.2.3/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/-1", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("/8", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse::<IpNet>().expect("a literal"));
            assert_eq!(parse_net(text), expected, "{text:?}");
        }
    }
}
