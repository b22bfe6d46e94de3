//! The programs of the packet path, on the node's links.

mod clsact;
mod inspect;
mod netlink;
mod pinned;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    os::fd::{AsFd, OwnedFd},
};

use self::{
    netlink::Netlink,
    pinned::{Loaded, Place},
};
use super::{hooks::LinkHook, pins::Pins};
use crate::links::{Link, Topology};

pub use inspect::{AttachedView, LinkView, inspect_links};
pub(crate) use table::LinkTable;

/// How the programs get their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkOptions {
    /// By which of the kernel's ways.
    pub tc: TcMode,
    /// Whether uplinks have an XDP program too.
    pub xdp: XdpMode,
    /// Whether pods' links have programs.
    pub workload: WorkloadLinks,
}

/// How programs are attached to traffic control.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum TcMode {
    /// tcx where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// tcx, side by side with the programs of others.
    Tcx,
    /// A filter of the clsact queueing discipline.
    Clsact,
}

/// Whether packets are forwarded before the kernel has made anything of them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum XdpMode {
    /// No XDP program: to attach one resets some network cards.
    #[default]
    Off,
    /// In the driver, on uplinks whose driver can.
    Auto,
    /// As auto, with a warning for each uplink whose driver cannot.
    Native,
    /// Behind the driver, which is slower than none: for tests.
    Generic,
}

/// Whether packets that pods send and receive go through the programs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum WorkloadLinks {
    /// While a Service needs it: one with SCTP, or with ranges of allowed sources.
    #[default]
    Auto,
    /// Also for pods whose connects the socket path does not see: virtual machines, and sandboxes with a
    /// kernel of their own.
    Always,
    /// Not even then.
    Never,
}

impl WorkloadLinks {
    /// Itself, but where the sockets of pods are not seen by their cgroup, their packets have to be.
    pub(crate) fn without_sockets_of_pods(self, are_not_seen: bool) -> Self {
        if self == Self::Auto && are_not_seen { Self::Always } else { self }
    }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct LinkProgram {
    pub(crate) program: OwnedFd,
    /// Its number.
    pub(crate) id: u32,
}

/// Keeps the programs on the links that they belong to, and the map `LINKS` in step. What is attached stays
/// when this is dropped.
#[derive(Debug)]
pub(crate) struct Attachments {
    programs: BTreeMap<LinkHook, LinkProgram>,
    options: LinkOptions,
    table: LinkTable,
    tcx: bool,
    /// Uplinks that refused XDP, with their MTU: not asked again before that changes, for some network cards
    /// are reset by the attempt.
    no_xdp: BTreeMap<u32, u32>,
    /// On how many links each program is.
    attached: BTreeMap<LinkHook, usize>,
    said: HashSet<(u32, String)>,
    /// What an earlier agent has left as filters is known to be gone.
    clean: bool,
}

impl Attachments {
    pub(crate) fn new(
        programs: BTreeMap<LinkHook, LinkProgram>,
        options: LinkOptions,
        table: LinkTable,
    ) -> Self {
        let probe = || programs.values().next().is_some_and(|loaded| pinned::has_tcx(loaded.program.as_fd()));
        let tcx = match options.tc {
            TcMode::Auto => probe(),
            TcMode::Tcx => true,
            TcMode::Clsact => false,
        };
        let (no_xdp, attached) = (BTreeMap::new(), BTreeMap::new());
        Self { programs, options, table, tcx, no_xdp, attached, said: HashSet::new(), clean: false }
    }

    /// On how many links each program was when they were last looked at.
    pub(crate) fn attached(&self) -> impl Iterator<Item = (LinkHook, usize)> {
        LinkHook::ALL.into_iter().map(|hook| (hook, self.attached.get(&hook).copied().unwrap_or_default()))
    }

    /// Brings links and programs together: what is attached already gets the new program in its place, what
    /// is on a link that is gone or has another role now is removed. False when something is left to be
    /// tried again.
    pub(crate) fn set(&mut self, pins: &Pins, topology: &Topology, needs_workload: bool) -> bool {
        self.forget(topology);
        let netlink = match Netlink::open() {
            Ok(netlink) => netlink,
            Err(error) => return self.fail(0, format!("opening a netlink socket: {error}")),
        };
        // Before the programs: they decide by it.
        let may_redirect = matches!(self.options.xdp, XdpMode::Auto | XdpMode::Native);
        let has_native = |index| may_redirect && self.table.has_native_xdp(index);
        // Until it is certain that none is: TC would take what XDP has made of a packet for what came.
        let wants_xdp = self.wants(LinkHook::UplinkXdp, needs_workload);
        let gets_xdp = |link: &&Link| {
            wants_xdp && link.role == LinkHook::UplinkXdp.role() && self.may_take_xdp(link)
                || self.table.may_have_xdp_first(link.index)
        };
        let first: BTreeSet<u32> = topology.links.iter().filter(gets_xdp).map(|link| link.index).collect();
        let is_first = |index| first.contains(&index);
        let before = table::wanted(topology, has_native, is_first);
        let mut problems = self.table.set(&before);
        let (mut wanted, mut native) = (BTreeSet::new(), BTreeSet::new());
        let mut complete = true;
        self.attached.clear();
        for hook in LinkHook::ALL {
            if !self.wants(hook, needs_workload) {
                continue;
            }
            for link in topology.of_role(hook.role()) {
                if !link.ethernet {
                    self.say(link.index, || {
                        let Link { name, .. } = link;
                        format!("link {name} is not Ethernet: packets to Services that come in by it are not served")
                    });
                    continue;
                }
                let attached = match hook {
                    LinkHook::UplinkXdp => self.attach_xdp(&netlink, pins, link),
                    _ => self.attach_tc(&netlink, pins, hook, link),
                };
                if matches!(attached, Ok(Attached::Native | Attached::Yes)) {
                    *self.attached.entry(hook).or_default() += 1;
                }
                match attached {
                    Ok(Attached::Native) => drop(native.insert(link.index)),
                    Ok(Attached::Refused) => continue,
                    Ok(Attached::Yes) => {}
                    // The news of its end are on their way.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                    Err(error) => {
                        let what = format!("attaching {} to link {}: {error}", hook.name(), link.name);
                        complete &= self.fail(link.index, what);
                    }
                }
                wanted.insert((hook, link.index));
            }
        }
        let is_native = |index| native.contains(&index);
        problems.extend(self.table.set(&table::wanted(topology, is_native, is_first)));
        match self.remove_others(&netlink, pins, &wanted) {
            Ok(()) => {
                let is_first = |index| wanted.contains(&(LinkHook::UplinkXdp, index));
                problems.extend(self.table.set(&table::wanted(topology, is_native, is_first)));
            }
            Err(error) => problems.push(format!("removing programs from links: {error}")),
        }
        problems.into_iter().fold(complete, |_, problem| self.fail(0, problem))
    }

    fn wants(&self, hook: LinkHook, needs_workload: bool) -> bool {
        let wanted = match hook {
            LinkHook::UplinkEgress | LinkHook::UplinkIngress => true,
            LinkHook::WorkloadEgress | LinkHook::WorkloadIngress => needs_workload,
            LinkHook::UplinkXdp => self.options.xdp != XdpMode::Off,
        };
        wanted && self.programs.contains_key(&hook)
    }

    /// Whether XDP is tried on an uplink: it was not refused before, at the MTU that the link has now.
    fn may_take_xdp(&self, link: &Link) -> bool {
        link.ethernet && !link.hides_tags && self.no_xdp.get(&link.index) != Some(&link.mtu)
    }

    fn attach_tc(&self, netlink: &Netlink, pins: &Pins, hook: LinkHook, link: &Link) -> io::Result<Attached> {
        let loaded = self.loaded(hook)?;
        let done = if self.tcx {
            let place = if hook.is_egress() { Place::TcxEgress } else { Place::TcxIngress };
            pinned::attach(loaded, place, link.index, &pins.link(&hook.pin(link.index)))?
        } else {
            let filters = clsact::filters(netlink, link.index)?;
            let is_there = filters.iter().any(|filter| (filter.hook, filter.program) == (hook, loaded.id));
            if !is_there {
                clsact::attach(netlink, hook, link.index, loaded.program)?;
            }
            !is_there
        };
        if done {
            let how = if self.tcx { "tcx" } else { "clsact" };
            tracing::info!(link = link.name, program = hook.name(), how, "attached");
        }
        Ok(Attached::Yes)
    }

    fn attach_xdp(&mut self, netlink: &Netlink, pins: &Pins, link: &Link) -> io::Result<Attached> {
        let Link { index, name, mtu, .. } = link;
        if link.hides_tags {
            self.say(*index, || {
                format!(
                    "no XDP on link {name}: it takes the tags off the frames of the VLANs that are on it before a \
                     program sees them; its packets are served after the driver. With `ethtool -K {name} \
                     rx-vlan-offload off` it can have XDP"
                )
            });
            return Ok(Attached::Refused);
        }
        if !self.may_take_xdp(link) {
            return Ok(Attached::Refused);
        }
        let hook = LinkHook::UplinkXdp;
        let pin = pins.link(&hook.pin(*index));
        let native = self.options.xdp != XdpMode::Generic;
        let place = if native { Place::XdpNative } else { Place::XdpGeneric };
        // The mode of a link cannot be changed.
        if pinned::program(&pin, place, *index).is_some() && netlink.has_native_xdp(*index)? == Some(!native)
        {
            pinned::detach(&pin)?;
        }
        let refused = match pinned::attach(self.loaded(hook)?, place, *index, &pin) {
            Ok(done) => {
                if done {
                    let how = if native { "native" } else { "generic" };
                    tracing::info!(link = name, program = hook.name(), how, "attached");
                }
                return Ok(if native { Attached::Native } else { Attached::Yes });
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(error),
            Err(error) => error,
        };
        self.no_xdp.insert(*index, *mtu);
        let why = match refused.raw_os_error() {
            Some(libc::EBUSY) => "it has an XDP program of somebody else's".to_owned(),
            Some(libc::EOPNOTSUPP | libc::EINVAL) if native => {
                format!("its driver cannot run XDP programs, or not with an MTU of {mtu}")
            }
            _ => refused.to_string(),
        };
        let what = format!("no XDP on link {name}: {why}; its packets are served after the driver");
        if self.options.xdp == XdpMode::Auto && refused.raw_os_error() != Some(libc::EBUSY) {
            tracing::info!("{what}");
        } else {
            tracing::warn!("{what}");
        }
        Ok(Attached::Refused)
    }

    /// Removes what is attached but not `wanted`, and what is attached in the way that is not used.
    fn remove_others(
        &mut self,
        netlink: &Netlink,
        pins: &Pins,
        wanted: &BTreeSet<(LinkHook, u32)>,
    ) -> io::Result<()> {
        for name in pins.links().map_err(io::Error::other)? {
            let Some((hook, index)) = LinkHook::of_pin(&name) else { continue };
            if wanted.contains(&(hook, index)) && (self.tcx || hook == LinkHook::UplinkXdp) {
                continue;
            }
            pinned::detach(&pins.link(&name))?;
            tracing::info!(pin = name, "detached");
        }
        // With tcx no filter of ours comes up again.
        if self.clean && self.tcx {
            return Ok(());
        }
        for index in clsact::interfaces(netlink)? {
            for filter in clsact::filters(netlink, index)? {
                if self.tcx || !wanted.contains(&(filter.hook, index)) {
                    clsact::detach(netlink, filter.hook, index)?;
                    tracing::info!(
                        interface = index,
                        program = filter.hook.name(),
                        "removed a clsact filter"
                    );
                }
            }
        }
        self.clean = true;
        Ok(())
    }

    fn loaded(&self, hook: LinkHook) -> io::Result<Loaded<'_>> {
        let loaded = self.programs.get(&hook).ok_or(io::ErrorKind::NotFound)?;
        Ok(Loaded { program: loaded.program.as_fd(), id: loaded.id })
    }

    fn forget(&mut self, topology: &Topology) {
        let there: HashSet<u32> = topology.links.iter().map(|link| link.index).chain([0]).collect();
        self.said.retain(|(index, _)| there.contains(index));
        self.no_xdp.retain(|index, _| there.contains(index));
    }

    /// Always false, for what is to be tried again.
    fn fail(&mut self, index: u32, what: String) -> bool {
        self.say(index, || what);
        false
    }

    /// Warns, once for each link.
    fn say(&mut self, index: u32, what: impl FnOnce() -> String) {
        let what = what();
        if self.said.insert((index, what.clone())) {
            tracing::warn!("{what}");
        }
    }
}

/// What came of attaching a program.
enum Attached {
    /// It is attached.
    Yes,
    /// It is attached in the driver.
    Native,
    /// The link cannot have it.
    Refused,
}

/// Removes every filter of ours from the links of the thread's network namespace, and each queueing discipline
/// that is left empty by it. Returns what was removed, one line each.
pub(crate) fn remove_filters() -> io::Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let names = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut removed = Vec::new();
    for index in clsact::interfaces(&netlink)? {
        let filters = clsact::filters(&netlink, index)?;
        if filters.is_empty() {
            continue;
        }
        let link = rustix::net::netdevice::index_to_name(&names, index).unwrap_or_else(|_| index.to_string());
        for filter in filters {
            clsact::detach(&netlink, filter.hook, index)?;
            removed.push(format!("filter {} of link {link}", filter.hook.name()));
        }
        clsact::remove_empty(&netlink, index)?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::WorkloadLinks::{Always, Auto, Never};

    #[test]
    fn pods_whose_sockets_are_not_seen_are_served_on_their_links() {
        for (asked, not_seen, expected) in
            [(Auto, true, Always), (Auto, false, Auto), (Never, true, Never), (Always, false, Always)]
        {
            assert_eq!(asked.without_sockets_of_pods(not_seen), expected, "{asked:?}");
        }
    }
}
