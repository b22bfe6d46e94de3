//! Brings the tables from what they hold to what is planned, one service port at a time, without a moment
//! at which a reader finds half of something. Pure but for the [`Tables`] it is given.
//!
//! A step writes new backends and slots into free space, makes the names and the address filter ready,
//! and only then replaces frontends, each in one atomic update. What nothing refers to any more is taken
//! back after that, and rests until no program run can still hold it.

mod flush;
mod prepare;
mod readback;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use proxy_common::{EndpointList, Family, FrontendKind, SlotRange};

use super::{
    alloc::{Ids, Ranges},
    report::Report,
    tables::{Capacities, FrontendKey, Tables, filter_position},
};
use crate::plan::{PlanChange, ServicePortId, ServicePortPlan};

pub(crate) use readback::{Contents, identity};

/// Whether the programs that are attached now answer for frontends of this kind. The socket path serves
/// cluster IPs; the packet path adds the others.
pub(crate) fn serves(kind: FrontendKind) -> bool {
    kind == FrontendKind::ClusterIp
}

/// What the tables hold for one service port.
#[derive(Debug, Default)]
struct Programmed {
    service_port: u32,
    affinity: bool,
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

/// What is remembered of a frontend entry: enough to know whose it is and whether it would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    service_port: u32,
    seal: [u32; 2],
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
    /// Frontends of each address, the entry for unknown ports not among them.
    addresses: HashMap<IpAddr, u32>,
    /// Addresses behind each bit of the address filter that is set.
    filter: HashMap<u32, u32>,
    programmed: HashMap<ServicePortId, Programmed>,
    /// Found in the maps at the start, but nobody's: removed by the first step.
    orphans: Vec<(Family, Programmed)>,
    /// Refused for now, with what they should become.
    waiting: HashMap<ServicePortId, Arc<ServicePortPlan>>,
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

    /// Whether some service port is served by programs on the links of pods.
    #[expect(clippy::unused_self, reason = "none is, so far")]
    pub(crate) fn needs_workload_links(&self) -> bool {
        false
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
    }

    /// Counts a new frontend of an address; the first one sets the address' bit in the filter.
    fn count_address(&mut self, address: IpAddr) {
        let count = self.addresses.entry(address).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        let (word, mask) = filter_position(address);
        *self.filter.entry(word * 64 + mask.trailing_zeros()).or_default() += 1;
        let bits = self.tables.filter_word(word);
        if bits & mask == 0 {
            self.tables.write_filter_word(word, bits | mask);
        }
    }

    /// Uncounts a frontend of an address; true when it was the last one. The bit stays set until
    /// [`Self::forget_address`].
    fn uncount_address(&mut self, address: IpAddr) -> bool {
        let Some(count) = self.addresses.get_mut(&address) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.addresses.remove(&address);
        }
        last
    }

    /// Clears the bit of an address that has no frontend any more, unless another one shares it.
    fn forget_address(&mut self, address: IpAddr) {
        let (word, mask) = filter_position(address);
        let bit = word * 64 + mask.trailing_zeros();
        let Some(count) = self.filter.get_mut(&bit) else { return };
        *count -= 1;
        if *count == 0 {
            self.filter.remove(&bit);
            let bits = self.tables.filter_word(word);
            self.tables.write_filter_word(word, bits & !mask);
        }
    }

    /// Clears what an earlier agent left set.
    fn correct_filter(&mut self) {
        let mut words = vec![0_u64; proxy_common::FILTER_WORDS as usize];
        for bit in self.filter.keys() {
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        for (index, bits) in (0..).zip(words) {
            if self.tables.filter_word(index) != bits {
                self.tables.write_filter_word(index, bits);
            }
        }
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
