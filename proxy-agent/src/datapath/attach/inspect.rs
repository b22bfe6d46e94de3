use std::{net::IpAddr, path::Path};

use proxy_common::{Link, LinkRole};
use serde::Serialize;

use super::{
    clsact,
    netlink::Netlink,
    pinned::{self, Place},
    table::LinkTable,
};
use crate::{
    datapath::{Error, hooks::LinkHook, pins},
    links::Facts,
};

/// A link of the node, as the programs see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    /// Interface index; 0 for the entry that stands for links not heard of yet.
    pub index: u32,
    /// Interface name; `None` for a link that is gone.
    pub name: Option<String>,
    /// Of a VLAN: name of the link that its frames go over.
    pub parent: Option<String>,
    /// `uplink`, `workload`, `none`; `unknown` when the programs know nothing of it.
    pub role: &'static str,
    /// The link's own addresses.
    pub addresses: Vec<IpAddr>,
    /// From which addresses packets are sent out there in a client's place.
    pub sources: Vec<IpAddr>,
    /// Whether frames may be redirected to it from XDP.
    pub xdp_redirect: bool,
    /// The programs on it.
    pub attached: Vec<AttachedView>,
}

/// A program on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttachedView {
    /// Its name.
    pub program: &'static str,
    /// `tcx`, `clsact`, `native`, `generic`.
    pub how: &'static str,
    /// Its number, as bpftool shows it.
    pub id: u32,
}

/// Puts together what the kernel has of links (`facts`), and what the maps and pins below `bpffs` have,
/// whether or not an agent is running.
///
/// # Errors
/// [`Error::NothingPinned`], or what is not readable.
pub fn inspect_links(bpffs: &Path, facts: &Facts) -> Result<Vec<LinkView>, Error> {
    let table = LinkTable::open(&pins::current_maps(bpffs)?)?;
    let netlink = Netlink::open().map_err(Error::path("opening a netlink socket for", bpffs))?;
    let mut views = Vec::new();
    for link in facts.links.iter().filter(|link| !link.loopback) {
        let mut view = view(link.index, table.entries().get(&link.index));
        view.name = Some(link.name.clone());
        let parent = facts.links.iter().find(|other| Some(other.index) == link.parent);
        view.parent = parent.map(|parent| parent.name.clone());
        view.addresses.clone_from(&link.addresses);
        view.attached = attached(&netlink, bpffs, link.index);
        views.push(view);
    }
    let gone =
        table.entries().iter().filter(|(index, _)| facts.links.iter().all(|link| link.index != **index));
    views.extend(gone.map(|(index, entry)| view(*index, Some(entry))));
    views.sort_by_key(|view| view.index);
    Ok(views)
}

fn view(index: u32, entry: Option<&Link>) -> LinkView {
    let sources = entry.into_iter().flat_map(|entry| {
        let v4 = (entry.address4 != [0; 4]).then(|| IpAddr::from(entry.address4));
        let v6 = (entry.address6 != [0; 16]).then(|| IpAddr::from(entry.address6));
        v4.into_iter().chain(v6)
    });
    LinkView {
        index,
        name: None,
        parent: None,
        role: entry.map_or("unknown", |entry| match entry.role {
            LinkRole::None => "none",
            LinkRole::Uplink => "uplink",
            LinkRole::Workload => "workload",
        }),
        addresses: Vec::new(),
        sources: sources.collect(),
        xdp_redirect: entry.is_some_and(|entry| entry.xdp != 0),
        attached: Vec::new(),
    }
}

fn attached(netlink: &Netlink, bpffs: &Path, index: u32) -> Vec<AttachedView> {
    let by_pin = LinkHook::ALL.into_iter().filter_map(|hook| {
        let place = match hook {
            LinkHook::UplinkXdp => Place::XdpNative,
            _ if hook.is_egress() => Place::TcxEgress,
            _ => Place::TcxIngress,
        };
        let id = pinned::program(&pins::link(bpffs, &hook.pin(index)), place, index)?;
        let how = match hook {
            LinkHook::UplinkXdp => match netlink.has_native_xdp(index) {
                Ok(Some(false)) => "generic",
                _ => "native",
            },
            _ => "tcx",
        };
        Some(AttachedView { program: hook.name(), how, id })
    });
    let by_filter = clsact::filters(netlink, index).unwrap_or_default();
    let by_filter = by_filter.into_iter().map(|filter| AttachedView {
        program: filter.hook.name(),
        how: "clsact",
        id: filter.program,
    });
    by_pin.chain(by_filter).collect()
}
