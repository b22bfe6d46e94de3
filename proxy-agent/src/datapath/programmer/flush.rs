use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;
use proxy_common::{Family, Frontend, Protocol, ServicePort};

use super::{Entry, Held, Programmed, Programmer, entries::Vacated, index};
use crate::{
    datapath::{
        report::{Refused, RefusedReason, Report},
        tables::{FrontendKey, SourceRange, Tables},
    },
    plan::{ServicePortId, ServicePortPlan},
};

/// One step's writes, in the order in which readers may see them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) services: Vec<(u32, ServicePort)>,
    /// Backends by family whose load must be set to nothing.
    pub(super) loads: [Vec<u32>; 2],
    /// Source ranges to add, with the index of their owner in `done`.
    pub(super) sources: Vec<(SourceRange, usize)>,
    pub(super) puts: Vec<Put>,
    /// Where in `puts` a key is: should two claim it, the later one has it.
    pub(super) queued: HashMap<FrontendKey, usize>,
    pub(super) done: Vec<Done>,
    pub(super) vacated: Vacated,
    /// Whether a frontend is replaced that asked for source ranges which the new one does not ask for.
    pub(super) lifted: bool,
}

/// One frontend entry to insert or replace.
pub(super) struct Put {
    pub(super) key: FrontendKey,
    pub(super) value: Frontend,
    pub(super) before: Option<Entry>,
    /// Index in [`Batch::done`].
    pub(super) owner: usize,
}

/// A service port that is moved from `old` to `next`.
pub(super) struct Done {
    /// `None` for something found in the maps that has no name.
    pub(super) id: Option<ServicePortId>,
    pub(super) family: Family,
    pub(super) old: Option<Programmed>,
    pub(super) next: Option<Programmed>,
    /// Lists of kept backends once the frontends have been replaced.
    pub(super) lists_after: Vec<(u32, u8)>,
    /// The source ranges that are asked for from now on.
    pub(super) clients: Vec<IpNet>,
    pub(super) error: Option<(String, io::Error)>,
}

impl Batch {
    /// A frontend did not get into its map. Whoever claims it has failed, not only the last: what was there before may
    /// be the entry of any, and refer to what it would give back.
    fn fail(&mut self, key: FrontendKey, owner: usize, code: Option<i32>) {
        for (number, done) in self.done.iter_mut().enumerate() {
            let claims = done.next.as_ref().is_some_and(|next| next.frontends.contains(&key));
            if number == owner || claims {
                let error =
                    || code.map_or_else(|| io::ErrorKind::Interrupted.into(), io::Error::from_raw_os_error);
                done.error.get_or_insert_with(|| (format!("frontend {key}"), error()));
            }
        }
    }
}

impl<T: Tables> Programmer<T> {
    /// Carries out one set of changes. True when it gave something back.
    pub(super) fn pass(
        &mut self,
        changes: &[(&ServicePortId, Option<&Arc<ServicePortPlan>>)],
        report: &mut Report,
    ) -> bool {
        let mut batch = Batch::default();
        for (id, plan) in changes {
            self.waiting.remove(*id);
            let plan = plan.filter(|plan| !plan.frontends.is_empty());
            match plan {
                Some(plan) => {
                    if let Err(reason) = self.prepare(id, plan, &mut batch, report) {
                        self.waiting.insert((*id).clone(), Arc::clone(plan));
                        report.refused.push(Refused { id: (*id).clone(), reason });
                    }
                }
                None => {
                    if let Some(old) = self.take_out(id) {
                        batch.done.push(Done::gone(Some((*id).clone()), id.family, old));
                    }
                }
            }
        }
        for (family, orphan) in std::mem::take(&mut self.orphans) {
            batch.done.push(Done::gone(None, family, orphan));
        }
        self.write(&mut batch, report);
        self.remove_old_frontends(&mut batch, report);
        let unused = std::mem::take(&mut batch.vacated.addresses);
        let freed = self.settle(batch, changes, report);
        for address in unused {
            self.forget_address(address);
        }
        freed
    }

    fn write(&mut self, batch: &mut Batch, report: &mut Report) {
        for failure in self.tables.put_services(&batch.services) {
            let (at, error) = failure;
            let id = batch.services[at].0;
            report.problems.push(format!("SERVICES: naming service port {id}: {error}"));
        }
        for (family, ids) in [Family::V4, Family::V6].into_iter().zip(&batch.loads) {
            for (at, error) in self.tables.reset_loads(family, ids) {
                report.problems.push(format!("BACKEND_LOAD: resetting backend {}: {error}", ids[at]));
            }
        }
        self.write_sources(batch);
        let is_held_back = |put: &mut Put| !put.key.is_any_port() && batch.done[put.owner].error.is_some();
        let held_back: Vec<_> = batch.puts.extract_if(.., is_held_back).collect();
        for Put { key, before, owner, .. } in held_back {
            self.revert_entry(key, before, &mut batch.vacated);
            batch.fail(key, owner, None);
        }
        // The entries for unknown ports last: they must not refuse what comes with them.
        batch.puts.sort_by_key(|put| put.key.is_any_port());
        let entries: Vec<_> = batch.puts.iter().map(|put| (put.key, put.value)).collect();
        let failures = self.tables.put_frontends(&entries);
        // Only now: a grace period that prepare had to wait for was before the new frontends.
        self.lifted |= batch.lifted;
        report.frontends_written += entries.len() - failures.len();
        for (at, error) in failures {
            let Put { key, before, owner, .. } = batch.puts[at];
            self.revert_entry(key, before, &mut batch.vacated);
            batch.fail(key, owner, error.raw_os_error());
        }
    }

    /// Deletes the frontends that service ports have lost to nobody, and the entries for unknown ports of
    /// addresses that are no cluster IP any more.
    fn remove_old_frontends(&mut self, batch: &mut Batch, report: &mut Report) {
        let mut lost = Vec::new();
        for (number, done) in batch.done.iter().enumerate().filter(|(_, done)| done.error.is_none()) {
            let Some(old) = &done.old else { continue };
            let kept: HashSet<_> = done.next.iter().flat_map(|next| &next.frontends).collect();
            for key in old.frontends.iter().filter(|key| !kept.contains(key)) {
                // An address that is a cluster IP again keeps its entry for unknown ports.
                let in_use = key.is_any_port() && self.has_cluster_ip(key.address());
                let entry = self.frontends.get(key);
                if !in_use && entry.is_some_and(|entry| old.owns(entry.service_port)) {
                    lost.push((*key, Some(number)));
                    self.clear_entry(*key, &mut batch.vacated);
                }
            }
        }
        for address in std::mem::take(&mut batch.vacated.cluster_ips) {
            let any = FrontendKey::any_port(address);
            if !self.has_cluster_ip(address) && self.frontends.contains_key(&any) {
                lost.push((any, None));
                self.clear_entry(any, &mut batch.vacated);
            }
        }
        let keys: Vec<_> = lost.iter().map(|(key, _)| *key).collect();
        let failures = self.tables.remove_frontends(&keys);
        report.frontends_removed += keys.len() - failures.len();
        for (at, error) in failures {
            let (key, owner) = lost[at];
            report.problems.push(format!("frontend {key}: deleting it: {error}"));
            if let Some(owner) = owner {
                batch.done[owner].error = Some((format!("frontend {key}"), error));
            }
        }
    }

    /// Takes back what nothing refers to any more, now that the frontends are in place.
    fn settle(
        &mut self,
        batch: Batch,
        changes: &[(&ServicePortId, Option<&Arc<ServicePortPlan>>)],
        report: &mut Report,
    ) -> bool {
        let mut service_ports = std::mem::take(&mut self.unfinished);
        let mut stale = Vec::new();
        let mut freed = false;
        let plan_of = |id: &ServicePortId| {
            changes.iter().find(|(changed, _)| *changed == id).and_then(|(_, plan)| plan.cloned())
        };
        for mut done in batch.done {
            let failed_old = done.old.as_ref().filter(|_| done.error.is_some());
            let old_frontends = failed_old.map(|old| old.frontends.clone()).unwrap_or_default();
            let was_restricted = failed_old.is_some_and(|old| old.restricted);
            let mut left = left_behind(&mut done);
            if let Some((what, error)) = done.error {
                self.stumbled = true;
                // Frontends of the old state may still be there: keep all that they refer to.
                if let (Some(id), Some(mut next)) = (done.id, done.next) {
                    next.held = Some(Box::new(left));
                    next.restricted |= was_restricted;
                    let both: BTreeSet<_> = next.frontends.iter().chain(&old_frontends).copied().collect();
                    next.frontends = both.into_iter().collect();
                    self.waiting.extend(plan_of(&id).map(|plan| (id.clone(), plan)));
                    let reason = RefusedReason::Kernel { service: id.to_string(), what, error };
                    report.refused.push(Refused { id: id.clone(), reason });
                    self.put_in(id, next);
                }
                continue;
            }
            for (id, lists) in done.lists_after {
                self.tables.store_lists(done.family, id, lists);
            }
            freed |= !left.is_empty();
            for id in left.backends {
                let generation = self.tables.generation(done.family, id);
                self.tables.store_generation(done.family, id, generation.wrapping_add(1));
                self.backends[index(done.family)].rest(id);
                report.backends_removed += 1;
                match self.tables.backend(done.family, id).map(|backend| backend.protocol) {
                    Some(Protocol::Udp) => report.udp_backends_removed += 1,
                    Some(Protocol::Tcp) => report.tcp_backends_removed += 1,
                    _ => {}
                }
            }
            left.ranges.drain(..).for_each(|range| self.slots.rest(range));
            // Damaged maps may hold an id twice; it stays with the service port that has a name.
            left.service_ports.retain(|id| {
                done.id.is_some() || self.programmed.values().all(|state| state.service_port != *id)
            });
            service_ports.append(&mut left.service_ports);
            if let (Some(id), Some(next)) = (done.id, done.next) {
                stale.extend(self.stale_sources(&id, next.service_port, &done.clients));
                self.put_in(id, next);
            }
        }
        service_ports.sort_unstable();
        service_ports.dedup();
        stale.extend(service_ports.iter().flat_map(|id| self.sources.of(*id)).map(|range| (range, None)));
        freed |= self.remove_sources(&stale, plan_of, report);
        for (at, error) in self.tables.remove_services(&service_ports) {
            report.problems.push(format!("SERVICES: deleting service port {}: {error}", service_ports[at]));
        }
        for id in service_ports {
            if self.sources.of(id).next().is_none() {
                self.service_ports.rest(id);
            } else {
                // Whoever gets the id next must not let in the clients of the one before.
                self.unfinished.push(id);
            }
        }
        self.freed_at = Instant::now();
        freed
    }
}

impl Done {
    fn gone(id: Option<ServicePortId>, family: Family, old: Programmed) -> Self {
        Self {
            id,
            family,
            old: Some(old),
            next: None,
            lists_after: Vec::new(),
            clients: Vec::new(),
            error: None,
        }
    }
}

impl Programmed {
    /// Whether an entry with this service port id is ours: a flip that failed may have left the id of before.
    pub(super) fn owns(&self, service_port: u32) -> bool {
        let earlier = self.held.iter().flat_map(|held| &held.service_ports);
        earlier.chain([&self.service_port]).any(|own| *own == service_port)
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.backends.is_empty() && self.service_ports.is_empty()
    }
}

/// What `next` does not have any more, and what steps before had to keep.
fn left_behind(done: &mut Done) -> Held {
    let Some(mut old) = done.old.take() else { return Held::default() };
    let mut left = old.held.take().map(|held| *held).unwrap_or_default();
    let kept: HashSet<u32> = done.next.iter().flat_map(|next| next.backends.iter().copied()).collect();
    left.backends.extend(old.backends.iter().filter(|id| !kept.contains(id)));
    let ranges = done.next.as_ref().map_or([None; 2], |next| next.ranges);
    left.ranges.extend(
        old.ranges.into_iter().flatten().filter(|range| range.len > 0 && !ranges.contains(&Some(*range))),
    );
    if old.service_port != 0 && done.next.as_ref().is_none_or(|next| next.service_port != old.service_port) {
        left.service_ports.push(old.service_port);
    }
    left
}
