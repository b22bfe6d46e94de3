use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use ipnet::{IpNet, Ipv4Net};
use proxy_common::Family;

use super::{Programmer, flush::Batch, index, prepare::full};
use crate::{
    datapath::{
        report::{Refused, RefusedReason, Report},
        tables::{SourceRange, Tables},
    },
    plan::{ServicePortId, ServicePortPlan},
};

/// Every entry of the source range maps.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: BTreeSet<SourceRange>,
    /// Entries by family.
    counts: [usize; 2],
}

impl Sources {
    pub(super) fn insert(&mut self, range: SourceRange) {
        self.counts[index(range.family())] += usize::from(self.entries.insert(range));
    }

    fn remove(&mut self, range: &SourceRange) {
        self.counts[index(range.family())] -= usize::from(self.entries.remove(range));
    }

    /// The ranges of a service port id, in order.
    pub(super) fn of(&self, service_port: u32) -> impl Iterator<Item = SourceRange> {
        let first = SourceRange { service_port, clients: IpNet::V4(Ipv4Net::default()) };
        self.entries.range(first..).copied().take_while(move |range| range.service_port == service_port)
    }

    /// Entries by family.
    pub(super) fn counts(&self) -> [usize; 2] {
        self.counts
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> &BTreeSet<SourceRange> {
        &self.entries
    }
}

/// An entry to delete, and the service port that goes on without it.
pub(super) type Stale = (SourceRange, Option<ServicePortId>);

impl<T: Tables> Programmer<T> {
    /// `service_port` is the id that the service port keeps, if it keeps one.
    pub(super) fn check_source_room(
        &self,
        id: &ServicePortId,
        service_port: Option<u32>,
        clients: &[IpNet],
    ) -> Result<(), RefusedReason> {
        let is_new = |clients: &&IpNet| {
            service_port.is_none_or(|service_port| {
                !self.sources.entries.contains(&SourceRange { service_port, clients: **clients })
            })
        };
        let new = clients.iter().filter(is_new).count();
        let capacity = self.capacities.source_ranges;
        if new > 0 && self.sources.counts[index(id.family)] + new > capacity as usize {
            let map = if id.family == Family::V4 { "SOURCE_RANGES4" } else { "SOURCE_RANGES6" };
            return Err(full(id, map, capacity, "--max-source-ranges"));
        }
        Ok(())
    }

    /// Queues the ranges that are not in their map, and counts them as if they were there.
    pub(super) fn queue_sources(
        &mut self,
        service_port: u32,
        clients: &[IpNet],
        owner: usize,
        batch: &mut Batch,
    ) {
        for clients in clients {
            let range = SourceRange { service_port, clients: *clients };
            if !self.sources.entries.contains(&range) {
                self.sources.insert(range);
                batch.sources.push((range, owner));
            }
        }
    }

    /// Before the frontends that ask for them: a client that is let in must not be turned away for a moment. A
    /// service port that lacks one keeps its old frontends.
    pub(super) fn write_sources(&mut self, batch: &mut Batch) {
        let ranges: Vec<_> = batch.sources.iter().map(|(range, _)| *range).collect();
        for (at, error) in self.tables.put_source_ranges(&ranges) {
            let (range, owner) = batch.sources[at];
            self.sources.remove(&range);
            batch.done[owner].error = Some((format!("source range {}", range.clients), error));
        }
    }

    /// The ranges that a service port has, and that are not among the sorted ones that it is to have.
    pub(super) fn stale_sources(
        &self,
        id: &ServicePortId,
        service_port: u32,
        clients: &[IpNet],
    ) -> Vec<Stale> {
        let all = self.sources.of(service_port);
        all.filter(|range| clients.binary_search(&range.clients).is_err())
            .map(|range| (range, Some(id.clone())))
            .collect()
    }

    /// Deletes what no frontend asks for any more, once no program run is left that would miss it. True when there
    /// is more room than before.
    pub(super) fn remove_sources(
        &mut self,
        stale: &[Stale],
        plan_of: impl Fn(&ServicePortId) -> Option<Arc<ServicePortPlan>>,
        report: &mut Report,
    ) -> bool {
        if stale.is_empty() {
            return false;
        }
        if std::mem::take(&mut self.lifted) {
            self.tables.wait_for_readers(Instant::now());
        }
        let ranges: Vec<_> = stale.iter().map(|(range, _)| *range).collect();
        let mut freed = false;
        let mut failures: HashMap<usize, _> = self.tables.remove_source_ranges(&ranges).into_iter().collect();
        for (at, (range, id)) in stale.iter().enumerate() {
            let Some(error) = failures.remove(&at) else {
                self.sources.remove(range);
                freed = true;
                continue;
            };
            // A client that is not let in any more still is: not to be left at that.
            self.stumbled = true;
            let what = format!("source range {}", range.clients);
            let Some(id) = id else {
                report.problems.push(format!("{what}: deleting it: {error}"));
                continue;
            };
            self.waiting.extend(plan_of(id).map(|plan| (id.clone(), plan)));
            let reason = RefusedReason::Kernel { service: id.to_string(), what, error };
            report.refused.push(Refused { id: id.clone(), reason });
        }
        freed
    }
}
