use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proxy_common::{Family, LinkRole};

use super::{Facts, Link, LinkFacts, RouteKind, Topology, Uplinks};

#[cfg(test)]
mod tests;

/// Where kube-proxy in IPVS mode keeps the addresses of Services. They look local, but are not the node's.
const IPVS_LINK: &str = "kube-ipvs0";

/// Links that lead to other nodes even where their routes name no gateway.
const TUNNELS: [&str; 10] =
    ["vxlan", "geneve", "wireguard", "ipip", "gre", "gretap", "sit", "ip6tnl", "ip6gre", "tun"];

/// What each link leads to. `node` is the addresses of the Node object, the most important one first.
#[must_use]
pub fn classify(facts: &Facts, node: &[IpAddr], uplinks: &Uplinks) -> Topology {
    let roles: Vec<_> = facts
        .links
        .iter()
        .filter(|link| !link.loopback)
        .map(|link| (link, role(link, facts, node, uplinks)))
        .collect();
    let primary4 = primary(&roles, facts, node, Family::V4).and_then(v4);
    let primary6 = primary(&roles, facts, node, Family::V6).and_then(v6);
    let links = roles.iter().map(|(link, role)| {
        let own = (*role == LinkRole::Uplink).then_some(*link);
        Link {
            index: link.index,
            name: link.name.clone(),
            role: *role,
            addresses: link.addresses.clone(),
            source4: own.and_then(|link| source(link, node, Family::V4)).and_then(v4).or(primary4),
            source6: own.and_then(|link| source(link, node, Family::V6)).and_then(v6).or(primary6),
            ethernet: link.ethernet,
            hides_tags: link.hides_tags,
            mtu: link.mtu,
        }
    });
    Topology { links: links.collect(), primary4, primary6, local_addresses: local_addresses(facts) }
}

fn role(link: &LinkFacts, facts: &Facts, node: &[IpAddr], uplinks: &Uplinks) -> LinkRole {
    let mut routes = facts.routes.iter().filter(|route| route.link == link.index).peekable();
    let has_routes = routes.peek().is_some();
    let mut leads_out = || {
        link.addresses.iter().any(|address| node.contains(address))
            || routes.any(|route| route.kind != RouteKind::Direct)
            || (has_routes && TUNNELS.contains(&link.kind.as_str()))
    };
    // The master speaks for its parts: they see the same packets.
    let uplink = if uplinks.is_automatic() {
        !link.enslaved && link.name != IPVS_LINK && leads_out()
    } else {
        uplinks.names(&link.name)
    };
    if uplink {
        LinkRole::Uplink
    } else if link.up && !link.enslaved && has_routes {
        LinkRole::Workload
    } else {
        LinkRole::None
    }
}

/// The node's address of a family: the first of the Node object that is on a link, else that of the uplink
/// that all other destinations are reached through.
fn primary(
    roles: &[(&LinkFacts, LinkRole)],
    facts: &Facts,
    node: &[IpAddr],
    family: Family,
) -> Option<IpAddr> {
    let of_node = node.iter().copied().find(|address| {
        is_source(*address, family) && facts.links.iter().any(|link| link.addresses.contains(address))
    });
    let mut uplinks: Vec<_> = roles
        .iter()
        .filter(|(_, role)| *role == LinkRole::Uplink)
        .map(|(link, _)| {
            let metrics = facts.routes.iter().filter_map(|route| match route.kind {
                RouteKind::Default(metric) if (route.link, route.family) == (link.index, family) => {
                    Some(metric)
                }
                _ => None,
            });
            (metrics.min().map_or(u64::MAX, u64::from), *link)
        })
        .collect();
    uplinks.sort_by_key(|(metric, link)| (*metric, link.index));
    of_node.or_else(|| uplinks.iter().find_map(|(_, link)| source(link, node, family)))
}

/// An uplink's own address: the Node object's where it has it, for that is the one that others expect.
fn source(link: &LinkFacts, node: &[IpAddr], family: Family) -> Option<IpAddr> {
    let mut candidates = link.sources.iter().copied().filter(|address| is_source(*address, family));
    let first = candidates.clone().next();
    candidates.find(|address| node.contains(address)).or(first)
}

/// Whether packets with this source find their way back from anywhere.
fn is_source(address: IpAddr, family: Family) -> bool {
    match address {
        IpAddr::V4(v4) => family == Family::V4 && !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => family == Family::V6 && !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

fn local_addresses(facts: &Facts) -> Vec<IpAddr> {
    let links = facts.links.iter().filter(|link| link.name != IPVS_LINK);
    let all: BTreeSet<IpAddr> = links.flat_map(|link| link.addresses.iter().copied()).collect();
    all.into_iter()
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback(),
            // One such address is another host's on another link.
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect()
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(v4) = address { Some(v4) } else { None }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(v6) = address { Some(v6) } else { None }
}
