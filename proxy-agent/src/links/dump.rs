use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use proxy_common::Family;
use rtnetlink::{
    Error, Handle, RouteMessageBuilder, new_connection,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
        link::{InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};

use super::{Facts, LinkFacts, RouteFacts, RouteKind, offloads};

/// Kernel table of what is delivered locally.
const LOCAL: u32 = 255;
/// Kind of a link that is a VLAN on another one.
const VLAN: &str = "vlan";
/// `IFA_F_TEMPORARY`, which IPv4 calls secondary.
const TEMPORARY: AddressFlags = AddressFlags::Secondary;

/// Reads links, addresses and routes of the thread's network namespace.
///
/// # Errors
/// The kernel's.
pub async fn read_once() -> anyhow::Result<Facts> {
    let (connection, handle, _) = new_connection().context("opening a netlink socket")?;
    tokio::select! {
        () = connection => bail!("a netlink socket was lost"),
        facts = read(&handle) => facts.context("reading links, addresses and routes"),
    }
}

/// As [`read_once`], with a socket that is there.
pub(super) async fn read(handle: &Handle) -> Result<Facts, Error> {
    let mut links = BTreeMap::new();
    let mut found = handle.link().get().execute();
    while let Some(message) = found.try_next().await? {
        links.insert(message.header.index, link(&message));
    }
    let parents: BTreeSet<u32> = links.values().filter_map(|link| link.parent).collect();
    for parent in parents {
        if let Some(link) = links.get_mut(&parent) {
            // In doubt it does.
            link.hides_tags = offloads::takes_tags_off(&link.name).unwrap_or(true);
        }
    }
    let mut found = handle.address().get().execute();
    while let Some(message) = found.try_next().await? {
        if let Some(link) = links.get_mut(&message.header.index) {
            add_address(link, &message);
        }
    }
    let mut facts = Facts { links: links.into_values().collect(), ..Facts::default() };
    for families in
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
    {
        let mut found = handle.route().get(families).execute();
        while let Some(message) = found.try_next().await? {
            facts.routes.extend(routes(&message));
        }
    }
    Ok(facts)
}

fn link(message: &LinkMessage) -> LinkFacts {
    let mut link = LinkFacts {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..LinkFacts::default()
    };
    let mut is_part = false;
    let mut of_vrf = false;
    let (mut lower, mut is_elsewhere) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => is_part = *master != 0,
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        // A VRF is a routing table: its links keep their addresses and routes.
                        LinkInfo::PortKind(kind) => of_vrf = *kind == InfoPortKind::Vrf,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.enslaved = is_part && !of_vrf;
    link.parent = lower.filter(|_| link.kind == VLAN && !is_elsewhere);
    link
}

fn add_address(link: &mut LinkFacts, message: &AddressMessage) {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            // Differs from the other only on a point-to-point link, where that is the peer's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let Some(ip) = local.or(address) else { return };
    let waiting = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if waiting || flags.contains(AddressFlags::Dadfailed) {
        return;
    }
    link.addresses.push(ip);
    let is_temporary = ip.is_ipv6() && flags.contains(TEMPORARY);
    let is_global = matches!(message.header.scope, AddressScope::Universe | AddressScope::Site);
    if is_global && !is_temporary && !flags.contains(AddressFlags::Deprecated) {
        link.sources.push(ip);
    }
}

/// One for each link that the route leads out of.
fn routes(message: &RouteMessage) -> Vec<RouteFacts> {
    let RouteHeader { address_family, destination_prefix_length, table, kind, .. } = message.header;
    let family = match address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Vec::new(),
    };
    if kind != RouteType::Unicast {
        return Vec::new();
    }
    let (mut table, mut metric) = (u32::from(table), 0);
    let (mut destination, mut link, mut gateway) = (None, None, false);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::MultiPath(next) => {
                hops.extend(
                    next.iter().map(|hop| (hop.interface_index, hop.attributes.iter().any(is_gateway))),
                );
            }
            other => gateway |= is_gateway(other),
        }
    }
    let everywhere = destination.is_some_and(|ip| match ip {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    });
    if table == LOCAL || everywhere {
        return Vec::new();
    }
    hops.extend(link.map(|link| (link, gateway)));
    hops.into_iter()
        .map(|(link, gateway)| {
            let kind = match gateway {
                _ if destination_prefix_length == 0 => RouteKind::Default(metric),
                true => RouteKind::Gateway,
                false => RouteKind::Direct,
            };
            RouteFacts { link, family, kind }
        })
        .collect()
}

fn is_gateway(attribute: &RouteAttribute) -> bool {
    matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
}
