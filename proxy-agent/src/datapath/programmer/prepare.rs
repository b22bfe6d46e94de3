use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    net::IpAddr,
};

use bytemuck::Zeroable;
use proxy_common::{
    Algorithm, EndpointList, FRONTEND_IS_LOCAL, FRONTEND_SOURCE_RANGES, Family, Frontend, FrontendKind,
    NO_SERVICE_PORT, SERVICE_NAME_LEN, ServicePort, SlotRange, WhenEmpty, is_live,
};

use super::{
    Entry, Programmed, Programmer,
    flush::{Batch, Done, Put},
    index, list_index,
};
use crate::{
    datapath::{
        report::{RefusedReason, Report},
        tables::{Backend, FrontendKey, Tables},
    },
    plan::{PlannedFrontend, ServicePortId, ServicePortPlan},
};

const LISTS: [EndpointList; 2] = [EndpointList::Cluster, EndpointList::Local];

/// Backend ids and slot ranges that were found or taken for a plan, before anything is written.
struct Space {
    /// Of each endpoint of the plan, in its order.
    ids: Vec<u32>,
    /// Whether the endpoint had its id before.
    kept: Vec<bool>,
    ranges: [Option<SlotRange>; 2],
    /// Whether the list's range has to be written.
    fresh: [bool; 2],
}

impl<T: Tables> Programmer<T> {
    /// Gets everything for a service port into place but its frontends, which go into `batch`. When that
    /// cannot be done nothing has changed.
    pub(super) fn prepare(
        &mut self,
        id: &ServicePortId,
        plan: &ServicePortPlan,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), RefusedReason> {
        let key = |frontend: &PlannedFrontend| FrontendKey::new(frontend.address, frontend.port, id.protocol);
        let keys: Box<[_]> = plan.frontends.iter().map(key).collect();
        self.check_frontend_room(id, &plan.frontends, &keys)?;
        let name = entry_name(id)?;
        let affinity = plan.affinity_seconds.is_some();
        // A service port whose affinity is turned on or off starts without anything remembered.
        let kept = self.programmed.get(id).filter(|old| old.affinity == affinity);
        let same_id = kept.map(|old| old.service_port);
        let restricted = plan.frontends.iter().any(|frontend| is_restricted(plan, frontend));
        let clients = if restricted { plan.allowed_sources() } else { Vec::new() };
        self.check_source_room(id, same_id, &clients)?;
        let old = self.take_out(id);
        let taken = match same_id {
            Some(service_port) => Ok(service_port),
            None => self.take_service_port(id),
        };
        let space = taken.and_then(|service_port| {
            self.find_space(id, plan, old.as_ref()).map(|space| (service_port, space)).inspect_err(|_| {
                if same_id.is_none() {
                    self.service_ports.put_back(service_port);
                }
            })
        });
        let (service_port, space) = match space {
            Ok(space) => space,
            Err(reason) => {
                if let Some(old) = old {
                    self.put_in(id.clone(), old);
                }
                return Err(reason);
            }
        };
        if same_id.is_none() {
            batch.services.push((service_port, name));
        }
        let lists_after = self.write_backends(id, plan, service_port, &space, batch);
        report.backends_kept += space.kept.iter().filter(|kept| **kept).count();
        report.backends_added += space.kept.iter().filter(|kept| !**kept).count();
        self.write_slots(plan, &space);

        let number = batch.done.len();
        self.queue_sources(service_port, &clients, number, batch);
        for (key, frontend) in keys.iter().zip(&plan.frontends) {
            let value = key.seal(entry(plan, frontend, service_port, space.ranges));
            self.put(*key, value, number, batch, report);
        }
        for frontend in plan.frontends.iter().filter(|frontend| is_cluster_ip(frontend)) {
            let any = FrontendKey::any_port(frontend.address);
            self.put(any, any.seal(any_port_entry()), number, batch, report);
        }
        let next = Programmed {
            service_port,
            affinity,
            restricted,
            ranges: space.ranges,
            frontends: keys,
            backends: space.ids.into(),
            held: None,
        };
        batch.done.push(Done {
            id: Some(id.clone()),
            family: id.family,
            old,
            next: Some(next),
            lists_after,
            clients,
            error: None,
        });
        Ok(())
    }

    fn check_frontend_room(
        &self,
        id: &ServicePortId,
        frontends: &[PlannedFrontend],
        keys: &[FrontendKey],
    ) -> Result<(), RefusedReason> {
        let mut new = keys.iter().filter(|key| !self.frontends.contains_key(key)).count();
        let mut last_address = None;
        for frontend in frontends.iter().filter(|frontend| is_cluster_ip(frontend)) {
            let any = FrontendKey::any_port(frontend.address);
            // Sorted by address, so equal ones are neighbours: one entry for all of them.
            if last_address.replace(any) != Some(any) {
                new += usize::from(!self.frontends.contains_key(&any));
            }
        }
        let capacity = self.capacities.frontends;
        if new > 0 && self.frontend_counts[index(id.family)] + new > capacity as usize {
            let map = if id.family == Family::V4 { "FRONTENDS4" } else { "FRONTENDS6" };
            return Err(full(id, map, capacity, "--max-frontends"));
        }
        Ok(())
    }

    fn take_service_port(&mut self, id: &ServicePortId) -> Result<u32, RefusedReason> {
        if self.service_ports.available() == 0 && self.service_ports.resting() > 0 {
            self.release();
        }
        self.service_ports
            .take()
            .ok_or_else(|| full(id, "SERVICES", self.capacities.services, "--max-services"))
    }

    fn find_space(
        &mut self,
        id: &ServicePortId,
        plan: &ServicePortPlan,
        old: Option<&Programmed>,
    ) -> Result<Space, RefusedReason> {
        let known = self.known_backends(id.family, old);
        let found: Vec<Option<u32>> = plan
            .endpoints
            .iter()
            .map(|endpoint| known.get(&(endpoint.address, endpoint.port)).copied())
            .collect();
        let missing = found.iter().filter(|id| id.is_none()).count();
        let family = index(id.family);
        let ids = &self.backends[family];
        if ids.available() < missing && ids.available() + ids.resting() >= missing {
            self.release();
        }
        if self.backends[family].available() < missing {
            let map = if id.family == Family::V4 { "BACKENDS4" } else { "BACKENDS6" };
            return Err(full(id, map, self.capacities.backends(id.family), "--max-backends"));
        }
        let kept: Vec<bool> = found.iter().map(Option::is_some).collect();
        let ids: Vec<u32> =
            found.into_iter().filter_map(|id| id.or_else(|| self.backends[family].take())).collect();

        let mut space = Space { ids, kept, ranges: [None; 2], fresh: [false; 2] };
        for (position, list) in LISTS.into_iter().enumerate() {
            let used = plan.frontends.iter().any(|frontend| {
                [plan.internal_list(frontend.kind), plan.external_list(frontend.kind)].contains(&list)
            });
            if !used {
                continue;
            }
            let slots: Vec<u32> = list_ids(plan, &space.ids, list).collect();
            let unchanged =
                old.and_then(|old| old.ranges[position]).filter(|range| self.holds(*range, &slots));
            if unchanged.is_some() {
                space.ranges[position] = unchanged;
                continue;
            }
            let Some(range) = self.take_slots(slots.len()) else {
                self.give_up(family, &space);
                return Err(full(id, "SLOTS", self.capacities.slots, "--max-slots"));
            };
            space.ranges[position] = Some(range);
            space.fresh[position] = true;
        }
        Ok(space)
    }

    /// The ids of the backends that a service port has, by endpoint.
    pub(super) fn known_backends(
        &self,
        family: Family,
        old: Option<&Programmed>,
    ) -> HashMap<(IpAddr, u16), u32> {
        let ids = old.map_or(&[][..], |old| &old.backends);
        ids.iter()
            .filter_map(|id| {
                let backend = self.tables.backend(family, *id)?;
                is_live(backend.generation).then_some(((backend.address, backend.port), *id))
            })
            .collect()
    }

    fn holds(&self, range: SlotRange, ids: &[u32]) -> bool {
        range.len as usize == ids.len()
            && (range.base..).zip(ids).all(|(slot, id)| self.tables.slot(slot) == Some(*id))
    }

    fn take_slots(&mut self, len: usize) -> Option<SlotRange> {
        let len = u32::try_from(len).ok()?;
        if let Some(range) = self.slots.take(len) {
            return Some(range);
        }
        if self.slots.resting() == 0 || self.slots.available() + self.slots.resting() < len {
            return None;
        }
        self.release();
        self.slots.take(len)
    }

    /// Nothing refers to what was taken yet: it is free again at once.
    fn give_up(&mut self, family: usize, space: &Space) {
        for (id, kept) in space.ids.iter().zip(&space.kept) {
            if !kept {
                self.backends[family].put_back(*id);
            }
        }
        for (range, fresh) in space.ranges.iter().zip(space.fresh) {
            if let (Some(range), true) = (range, fresh) {
                self.slots.put_back(*range);
            }
        }
    }

    /// Writes new records; gives kept ones the lists of both before and after, which are in force until
    /// the frontends have been replaced. Returns what their lists become then.
    fn write_backends(
        &mut self,
        id: &ServicePortId,
        plan: &ServicePortPlan,
        service_port: u32,
        space: &Space,
        batch: &mut Batch,
    ) -> Vec<(u32, u8)> {
        let family = id.family;
        let mut lists_after = Vec::new();
        for ((endpoint, backend), kept) in plan.endpoints.iter().zip(&space.ids).zip(&space.kept) {
            let (backend, kept) = (*backend, *kept);
            if !kept {
                let before = self.tables.generation(family, backend);
                if before != 0 {
                    batch.loads[index(family)].push(backend);
                }
                let generation = if before == 0 { self.seed } else { before }.wrapping_add(1);
                let record = Backend {
                    address: endpoint.address,
                    port: endpoint.port,
                    lists: endpoint.lists,
                    protocol: id.protocol,
                    generation,
                    service_port,
                };
                self.tables.write_backend(family, backend, &record);
                continue;
            }
            let Some(record) = self.tables.backend(family, backend) else { continue };
            if record.service_port != service_port {
                self.tables.store_service_port(family, backend, service_port);
            }
            if record.lists != endpoint.lists {
                self.tables.store_lists(family, backend, record.lists | endpoint.lists);
                lists_after.push((backend, endpoint.lists));
            }
        }
        lists_after
    }

    fn write_slots(&mut self, plan: &ServicePortPlan, space: &Space) {
        for (position, list) in LISTS.into_iter().enumerate() {
            if let (Some(range), true) = (space.ranges[position], space.fresh[position]) {
                for (slot, id) in (range.base..).zip(list_ids(plan, &space.ids, list)) {
                    self.tables.write_slot(slot, id);
                }
            }
        }
    }

    /// Queues an entry that is not in the map in this form, and counts it as if it were there.
    fn put(
        &mut self,
        key: FrontendKey,
        value: Frontend,
        owner: usize,
        batch: &mut Batch,
        report: &mut Report,
    ) {
        let entry = Entry::new(&key, &value);
        let before = self.set_entry(key, entry, &mut batch.vacated);
        if before == Some(entry) {
            report.frontends_unchanged += 1;
            return;
        }
        batch.lifted |= before.is_some_and(|before| {
            before.restricted && (!entry.restricted || before.service_port != entry.service_port)
        });
        match batch.queued.entry(key) {
            MapEntry::Occupied(at) => {
                let put = &mut batch.puts[*at.get()];
                (put.value, put.owner) = (value, owner);
            }
            MapEntry::Vacant(at) => {
                at.insert(batch.puts.len());
                batch.puts.push(Put { key, value, before, owner });
            }
        }
    }
}

/// The ids of the endpoints in `list`, in order.
fn list_ids<'a>(
    plan: &'a ServicePortPlan,
    ids: &'a [u32],
    list: EndpointList,
) -> impl Iterator<Item = u32> + 'a {
    plan.endpoints.iter().zip(ids).filter(move |(endpoint, _)| endpoint.is_in(list)).map(|(_, id)| *id)
}

fn is_cluster_ip(frontend: &PlannedFrontend) -> bool {
    frontend.kind == FrontendKind::ClusterIp
}

/// Whether clients have to be in the source ranges: that is asked at load-balancer addresses only.
fn is_restricted(plan: &ServicePortPlan, frontend: &PlannedFrontend) -> bool {
    frontend.kind == FrontendKind::LoadBalancer && !plan.source_ranges.is_empty()
}

fn entry(
    plan: &ServicePortPlan,
    frontend: &PlannedFrontend,
    service_port: u32,
    ranges: [Option<SlotRange>; 2],
) -> Frontend {
    let kind = frontend.kind;
    let (internal_list, external_list) = (plan.internal_list(kind), plan.external_list(kind));
    let flag = |is: bool, flag| if is { flag } else { 0 };
    let range = |list| list_index(list).and_then(|position| ranges[position]).unwrap_or_default();
    Frontend {
        internal: range(internal_list),
        external: range(external_list),
        service_port,
        affinity_seconds: plan.affinity_seconds.unwrap_or(0),
        algorithm: Algorithm::Random,
        kind,
        internal_list,
        external_list,
        when_internal_empty: plan.when_empty(internal_list),
        when_external_empty: plan.when_empty(external_list),
        flags: flag(is_restricted(plan, frontend), FRONTEND_SOURCE_RANGES)
            | flag(frontend.local, FRONTEND_IS_LOCAL),
        ..Frontend::zeroed()
    }
}

/// Refuses the ports that a cluster IP does not have.
fn any_port_entry() -> Frontend {
    Frontend {
        service_port: NO_SERVICE_PORT,
        kind: FrontendKind::ClusterIp,
        when_internal_empty: WhenEmpty::Reject,
        ..Frontend::zeroed()
    }
}

fn entry_name(id: &ServicePortId) -> Result<ServicePort, RefusedReason> {
    let text = id.to_string();
    let mut name = [0; SERVICE_NAME_LEN];
    let Some(room) = name.get_mut(..text.len()) else {
        return Err(RefusedReason::Name { service: text, max: SERVICE_NAME_LEN });
    };
    room.copy_from_slice(text.as_bytes());
    Ok(ServicePort { name, protocol: id.protocol, family: id.family, reserved: [0; 2] })
}

pub(super) fn full(
    id: &ServicePortId,
    map: &'static str,
    capacity: u32,
    flag: &'static str,
) -> RefusedReason {
    RefusedReason::Full { service: id.to_string(), map, capacity, flag }
}
