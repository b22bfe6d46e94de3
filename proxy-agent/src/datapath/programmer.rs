//! Brings the tables from what they hold to what is planned, one service port at a time, without a moment
//! at which a reader finds half of something. Pure but for the [`Tables`] it is given.
//!
//! A step writes new backends and slots into free space, makes names, source ranges and the address filter
//! ready, and only then replaces frontends, each in one atomic update. What nothing refers to any more is taken
//! back after that, and rests until no program run can still hold it.

mod entries;
mod flush;
mod prepare;
mod readback;
mod serves;
mod sources;
#[cfg(test)]
mod tests;
mod usage;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use proxy_common::{EndpointList, Family, Protocol, SlotRange};

use super::{
    alloc::{Ids, Ranges},
    report::Report,
    tables::{Capacities, FrontendKey, Tables},
};
use crate::plan::{PlanChange, ServicePortId, ServicePortPlan};

use entries::{Entry, Uses};
pub(crate) use readback::{Contents, identity};
use sources::Sources;

/// What the tables hold for one service port.
#[derive(Debug, Default)]
struct Programmed {
    service_port: u32,
    affinity: bool,
    /// Whether a frontend asks for the client to be in the source ranges.
    restricted: bool,
    /// The range of the cluster list and of the local list, where a frontend uses it.
    ranges: [Option<SlotRange>; 2],
    frontends: Box<[FrontendKey]>,
    backends: Box<[u32]>,
    /// What earlier states left behind because a frontend may still refer to it.
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    ranges: Vec<SlotRange>,
    backends: Vec<u32>,
    service_ports: Vec<u32>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Programmer<T> {
    pub(crate) tables: T,
    capacities: Capacities,
    /// Even. Ids that were never used in this set of maps start from it, so that what sockets remember
    /// from an earlier set is taken for gone.
    seed: u32,
    service_ports: Ids,
    backends: [Ids; 2],
    slots: Ranges,
    freed_at: Instant,
    /// Every entry of the frontend maps.
    frontends: HashMap<FrontendKey, Entry>,
    /// Entries by family.
    frontend_counts: [usize; 2],
    addresses: HashMap<IpAddr, Uses>,
    sources: Sources,
    /// Service port ids that are nobody's, but whose source ranges the kernel has not deleted yet.
    unfinished: Vec<u32>,
    /// Addresses behind each bit of the address filter that is set.
    filter: HashMap<u32, u32>,
    programmed: HashMap<ServicePortId, Programmed>,
    /// How many of them the socket path alone cannot serve for the pods of this node.
    packet_path_only: usize,
    /// Found in the maps at the start, but nobody's: removed by the first step.
    orphans: Vec<(Family, Programmed)>,
    /// Refused for now, with what they should become.
    waiting: HashMap<ServicePortId, Arc<ServicePortPlan>>,
    /// Whether a program run may still hold a frontend that asks for source ranges which the one in its place
    /// does not ask for.
    lifted: bool,
    /// Whether the kernel has refused a write since the last time they were tried.
    stumbled: bool,
}

impl<T: Tables> Programmer<T> {
    /// Makes the tables hold exactly `complete`.
    pub(crate) fn reconcile(&mut self, complete: &[(ServicePortId, Arc<ServicePortPlan>)]) -> Report {
        let wanted: HashSet<&ServicePortId> = complete.iter().map(|(id, _)| id).collect();
        self.waiting.retain(|id, _| wanted.contains(id));
        let gone: Vec<ServicePortId> =
            self.programmed.keys().filter(|id| !wanted.contains(id)).cloned().collect();
        let changes: Vec<_> = complete
            .iter()
            .map(|(id, plan)| (id, Some(plan)))
            .chain(gone.iter().map(|id| (id, None)))
            .collect();
        let report = self.step(&changes);
        self.correct_filter();
        report
    }

    /// Applies single changes. One service port twice counts as its last. Also without changes it tries
    /// again what the kernel refused.
    pub(crate) fn apply(&mut self, changes: &[PlanChange]) -> Report {
        let mut seen = HashSet::new();
        let mut last: Vec<_> = changes
            .iter()
            .rev()
            .filter(|change| seen.insert(&change.id))
            .map(|change| (&change.id, change.plan.as_ref()))
            .collect();
        last.reverse();
        self.step(&last)
    }

    /// Number of service ports that the tables hold.
    pub(crate) fn len(&self) -> usize {
        self.programmed.len()
    }

    /// Whether a service port is programmed that pods of this node reach by packets only, so that the programs
    /// have to be on the links to them: no socket program sees SCTP, or knows a client by its address, which
    /// source ranges ask for.
    pub(crate) fn needs_workload_links(&self) -> bool {
        self.packet_path_only > 0
    }

    /// Takes a service port out, to change what is programmed for it.
    fn take_out(&mut self, id: &ServicePortId) -> Option<Programmed> {
        let state = self.programmed.remove(id)?;
        self.packet_path_only -= usize::from(state.is_packet_path_only(id));
        Some(state)
    }

    /// Keeps what is programmed for a service port that was taken out, or is new.
    fn put_in(&mut self, id: ServicePortId, state: Programmed) {
        self.packet_path_only += usize::from(state.is_packet_path_only(&id));
        self.programmed.insert(id, state);
    }

    fn step(&mut self, changes: &[(&ServicePortId, Option<&Arc<ServicePortPlan>>)]) -> Report {
        let start = Instant::now();
        let mut report = Report::default();
        let again = std::mem::take(&mut self.stumbled);
        let freed = self.pass(changes, &mut report);
        if (freed || again) && !self.waiting.is_empty() {
            let waiting: Vec<_> = self.waiting.drain().collect();
            let changes: Vec<_> = waiting.iter().map(|(id, plan)| (id, Some(plan))).collect();
            let known = report.refused.len();
            self.pass(&changes, &mut report);
            // Whoever still waits was reported when it began to.
            report.refused.truncate(known);
            report.refused.retain(|refused| self.waiting.contains_key(&refused.id));
        }
        report.waiting = self.waiting.len();
        report.duration = start.elapsed();
        report
    }

    /// Lets what rests be used again, once no reader is left in it.
    fn release(&mut self) {
        self.tables.wait_for_readers(self.freed_at);
        self.service_ports.release();
        self.backends.iter_mut().for_each(Ids::release);
        self.slots.release();
        self.lifted = false;
    }
}

impl Programmed {
    /// See [`Programmer::needs_workload_links`].
    fn is_packet_path_only(&self, id: &ServicePortId) -> bool {
        id.protocol == Protocol::Sctp || self.restricted
    }
}

/// Index of a family in arrays by family.
fn index(family: Family) -> usize {
    usize::from(family != Family::V4)
}

/// Index of a list in [`Programmed::ranges`].
fn list_index(list: EndpointList) -> Option<usize> {
    match list {
        EndpointList::None => None,
        EndpointList::Cluster => Some(0),
        EndpointList::Local => Some(1),
    }
}
