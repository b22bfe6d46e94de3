mod killed;
mod kinds;
mod serves;
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnet::IpNet;
use proptest::prelude::*;
use proxy_common::{
    FRONTEND_SOURCE_RANGES, Frontend, FrontendKind, Protocol, ServicePort, SlotRange, WhenEmpty, is_live,
};

use super::*;
use crate::{
    datapath::{
        report::{Refused, RefusedReason},
        tables::{Backend, Failures, SourceRange, filter_position},
    },
    plan::{PlannedEndpoint, PlannedFrontend},
    state::ObjectName,
};

type Endpoints = BTreeSet<(IpAddr, u16)>;

/// Tables in memory, with what a reader that still holds an old frontend needs to stay right.
#[derive(Debug, Default)]
struct Memory {
    backends: BTreeMap<(usize, u32), Backend>,
    slots: BTreeMap<u32, u32>,
    filter: BTreeMap<u32, u64>,
    services: BTreeMap<u32, ServicePort>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    ranges: BTreeSet<SourceRange>,
    readers: Vec<Reader>,
    grace_periods: usize,
    /// Frontends whose next write fails.
    failing: BTreeSet<FrontendKey>,
    /// Source ranges whose next write or deletion fails.
    failing_ranges: BTreeSet<IpNet>,
    /// Writes until the agent is killed: none after that gets here.
    left: Option<usize>,
    log: Vec<String>,
}

/// A program run that may still hold a frontend.
#[derive(Debug)]
struct Reader {
    key: FrontendKey,
    frontend: Frontend,
    /// What it may be led to.
    endpoints: [Endpoints; 2],
    /// Whom the frontend has always let in since.
    allowed: Allowed,
}

/// Clients that are let in, by their ranges; `None` is everybody.
type Allowed = Option<BTreeSet<IpNet>>;

impl Memory {
    fn endpoints(&self, family: usize, range: SlotRange) -> Endpoints {
        (range.base..range.base + range.len)
            .map(|slot| {
                let backend = &self.backends[&(family, self.slots[&slot])];
                (backend.address, backend.port)
            })
            .collect()
    }

    /// Of clients inside the cluster, and of those outside.
    fn both_endpoints(&self, family: usize, frontend: &Frontend) -> [Endpoints; 2] {
        [frontend.internal, frontend.external].map(|range| self.endpoints(family, range))
    }

    /// Whether the agent lives to see this write.
    fn lives(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Whoever read the frontend before now may go on with it until a grace period has passed.
    fn remember_reader(&mut self, key: &FrontendKey) {
        if let Some(frontend) = self.frontends.get(key).copied() {
            let endpoints = self.both_endpoints(index(key.family()), &frontend);
            let allowed = self.allowed(&frontend);
            self.readers.push(Reader { key: *key, frontend, endpoints, allowed });
        }
    }

    fn allowed(&self, frontend: &Frontend) -> Allowed {
        let own = self.ranges.iter().filter(|range| range.service_port == frontend.service_port);
        let clients = || own.map(|range| range.clients).collect();
        (frontend.flags & FRONTEND_SOURCE_RANGES != 0).then(clients)
    }

    /// No reader of an old frontend ends up at an endpoint that the frontend did not have.
    fn check_readers(&self) {
        for Reader { key, frontend, endpoints, .. } in &self.readers {
            let found = self.both_endpoints(index(key.family()), frontend);
            assert_eq!(&found, endpoints, "a reader in freed space");
        }
    }

    /// A client that has been let in at every moment since the frontend was read is still let in.
    fn check_clients(&mut self) {
        let mut readers = std::mem::take(&mut self.readers);
        for Reader { key, frontend, allowed, .. } in &mut readers {
            let Some(allowed) = allowed else { continue };
            let now = self.frontends.get(key).map(|now| self.allowed(now));
            allowed.retain(|clients| match &now {
                None => false,
                Some(now) => now.as_ref().is_none_or(|now| now.contains(clients)),
            });
            let found = self.allowed(frontend).expect("a frontend that asks for ranges");
            assert!(allowed.is_subset(&found), "{key} lets in {found:?}, and should {allowed:?}");
        }
        self.readers = readers;
    }
}

impl Tables for Memory {
    fn backend(&self, family: Family, id: u32) -> Option<Backend> {
        self.backends.get(&(index(family), id)).copied()
    }
    fn generation(&self, family: Family, id: u32) -> u32 {
        self.backend(family, id).map_or(0, |backend| backend.generation)
    }
    fn write_backend(&mut self, family: Family, id: u32, backend: &Backend) {
        if !self.lives() {
            return;
        }
        assert!(!is_live(self.generation(family, id)), "backend {id} is overwritten while in use");
        self.backends.insert((index(family), id), *backend);
    }
    fn store_lists(&mut self, family: Family, id: u32, lists: u8) {
        if !self.lives() {
            return;
        }
        self.backends.get_mut(&(index(family), id)).unwrap().lists = lists;
    }
    fn store_generation(&mut self, family: Family, id: u32, generation: u32) {
        if !self.lives() {
            return;
        }
        self.backends.get_mut(&(index(family), id)).unwrap().generation = generation;
        self.log.push(format!("generation {id}"));
    }
    fn store_service_port(&mut self, family: Family, id: u32, service_port: u32) {
        if !self.lives() {
            return;
        }
        self.backends.get_mut(&(index(family), id)).unwrap().service_port = service_port;
    }
    fn reset_loads(&mut self, _family: Family, _ids: &[u32]) -> Failures {
        Vec::new()
    }
    fn slot(&self, slot: u32) -> Option<u32> {
        self.slots.get(&slot).copied()
    }
    fn write_slot(&mut self, slot: u32, backend: u32) {
        if !self.lives() {
            return;
        }
        self.slots.insert(slot, backend);
    }
    fn filter_word(&self, word: u32) -> u64 {
        self.filter.get(&word).copied().unwrap_or(0)
    }
    fn write_filter_word(&mut self, word: u32, bits: u64) {
        if !self.lives() {
            return;
        }
        self.log.push(format!("filter {}", if bits == 0 { "clear" } else { "set" }));
        self.filter.insert(word, bits);
    }
    fn put_services(&mut self, entries: &[(u32, ServicePort)]) -> Failures {
        for (id, name) in entries {
            if self.lives() {
                self.services.insert(*id, *name);
            }
        }
        Vec::new()
    }
    fn remove_services(&mut self, ids: &[u32]) -> Failures {
        for id in ids {
            if self.lives() {
                self.services.remove(id);
            }
        }
        Vec::new()
    }
    fn put_source_ranges(&mut self, ranges: &[SourceRange]) -> Failures {
        let mut failures = Vec::new();
        for (at, range) in ranges.iter().enumerate() {
            if !self.lives() {
                break;
            }
            if self.failing_ranges.remove(&range.clients) {
                failures.push((at, io::Error::from_raw_os_error(libc::ENOMEM)));
                continue;
            }
            self.log.push(format!("allow {}", range.clients));
            assert!(self.ranges.insert(*range), "{range:?} is written twice");
        }
        failures
    }
    fn remove_source_ranges(&mut self, ranges: &[SourceRange]) -> Failures {
        let mut failures = Vec::new();
        for (at, range) in ranges.iter().enumerate() {
            if !self.lives() {
                break;
            }
            if self.failing_ranges.remove(&range.clients) {
                failures.push((at, io::Error::from_raw_os_error(libc::EBUSY)));
                continue;
            }
            self.log.push(format!("deny {}", range.clients));
            assert!(self.ranges.remove(range), "{range:?} is not there");
            self.check_clients();
        }
        failures
    }
    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Failures {
        let mut failures = Vec::new();
        for (at, (key, value)) in entries.iter().enumerate() {
            if !self.lives() {
                break;
            }
            if self.failing.remove(key) {
                failures.push((at, io::Error::from_raw_os_error(libc::ENOMEM)));
                continue;
            }
            self.remember_reader(key);
            self.log.push(format!("put {key}"));
            for (range, list) in
                [(value.internal, value.internal_list), (value.external, value.external_list)]
            {
                for id in (range.base..range.base + range.len).map(|slot| self.slots[&slot]) {
                    let backend = self.backends[&(index(key.family()), id)];
                    assert!(is_live(backend.generation) && backend.service_port == value.service_port);
                    assert!(backend.lists & list as u8 != 0);
                }
            }
            let (word, mask) = filter_position(key.address());
            assert!(self.filter_word(word) & mask != 0, "{key} is behind the filter");
            assert!(key.is_any_port() || self.services.contains_key(&value.service_port));
            self.frontends.insert(*key, *value);
            self.check_clients();
        }
        failures
    }
    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Failures {
        for key in keys {
            if !self.lives() {
                break;
            }
            self.remember_reader(key);
            self.log.push(format!("remove {key}"));
            assert!(self.frontends.remove(key).is_some());
            self.check_clients();
        }
        Vec::new()
    }
    fn wait_for_readers(&mut self, _since: Instant) {
        self.grace_periods += 1;
        self.readers.clear();
    }
}

const SMALL: Capacities = Capacities {
    frontends: 8,
    slots: 12,
    backends4: 11,
    backends6: 11,
    affinity: 16,
    services: 5,
    source_ranges: 4,
    flows: 8,
    new_flows: 8,
};

fn programmer(capacities: Capacities) -> Programmer<Memory> {
    Programmer::new(Memory::default(), capacities, Contents::default(), 1001)
}

/// A new agent over the tables of one that was killed.
fn restarted(programmer: Programmer<Memory>) -> Programmer<Memory> {
    let contents = Contents {
        services: programmer.tables.services.iter().map(|(id, name)| (*id, *name)).collect(),
        frontends: programmer.tables.frontends.iter().map(|(key, value)| (*key, *value)).collect(),
        source_ranges: programmer.tables.ranges.iter().copied().collect(),
    };
    Programmer::new(programmer.tables, programmer.capacities, contents, 77)
}

fn id(name: &str) -> ServicePortId {
    ServicePortId {
        service: ObjectName::new("default", name),
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    }
}

fn frontend(kind: FrontendKind, address: u8, port: u16) -> PlannedFrontend {
    PlannedFrontend {
        kind,
        address: [10, 96, 0, address].into(),
        port,
        local: kind == FrontendKind::NodePort,
    }
}

fn plan(frontends: &[(u8, u16)], endpoints: &[(u8, u8)]) -> ServicePortPlan {
    ServicePortPlan {
        frontends: frontends
            .iter()
            .map(|(address, port)| frontend(FrontendKind::ClusterIp, *address, *port))
            .collect(),
        endpoints: endpoints
            .iter()
            .map(|(address, lists)| PlannedEndpoint {
                address: [10, 244, 0, *address].into(),
                port: 8080,
                local: false,
                terminating: false,
                lists: *lists,
            })
            .collect(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        has_any: !endpoints.is_empty(),
        source_ranges: Vec::new(),
        exempt_sources: Vec::new(),
    }
}

fn change(name: &str, plan: ServicePortPlan) -> PlanChange {
    PlanChange { id: id(name), plan: Some(Arc::new(plan)) }
}

fn gone(name: &str) -> PlanChange {
    PlanChange { id: id(name), plan: None }
}

fn key(address: u8, port: u16) -> FrontendKey {
    FrontendKey::new([10, 96, 0, address].into(), port, Protocol::Tcp)
}

/// What a client of a frontend can reach, by last byte.
fn reach(programmer: &Programmer<Memory>, key: &FrontendKey) -> Option<Vec<u8>> {
    let frontend = programmer.tables.frontends.get(key)?;
    let endpoints = programmer.tables.endpoints(index(key.family()), frontend.internal);
    Some(
        endpoints
            .into_iter()
            .map(|(address, _)| match address {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(v6) => v6.octets()[15],
            })
            .collect(),
    )
}

#[test]
fn a_change_writes_only_what_differs() {
    let mut programmer = programmer(Capacities::default());
    let first = programmer.apply(&[change("a", plan(&[(1, 80), (1, 81)], &[(1, 1), (2, 1)]))]);
    assert_eq!((first.frontends_written, first.backends_added), (3, 2));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![1, 2]));
    let again = programmer.apply(&[change("a", plan(&[(1, 80), (1, 81)], &[(1, 1), (2, 1)]))]);
    assert_eq!((again.frontends_written, again.backends_added, again.backends_kept), (0, 0, 2));
    let third = programmer.apply(&[change("a", plan(&[(1, 80)], &[(2, 1), (3, 1)]))]);
    assert_eq!((third.frontends_written, third.frontends_removed), (1, 1));
    assert_eq!((third.backends_added, third.backends_removed, third.backends_kept), (1, 1, 1));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![2, 3]));
}

#[test]
fn all_frontends_of_a_service_port_share_its_range() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80), (2, 80)], &[(1, 1), (2, 1)]))]);
    let (one, two) = (programmer.tables.frontends[&key(1, 80)], programmer.tables.frontends[&key(2, 80)]);
    assert_eq!(one.internal, two.internal);
    assert!(one.seal != two.seal);
}

#[test]
fn writes_come_in_an_order_that_readers_can_stand() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    let any = "10.96.0.1 (other ports)";
    assert_eq!(programmer.tables.log, ["filter set", "put 10.96.0.1:80/TCP", &format!("put {any}")]);
    programmer.tables.log.clear();
    programmer.apply(&[gone("a")]);
    let expected = ["remove 10.96.0.1:80/TCP", &format!("remove {any}"), "generation 1", "filter clear"];
    assert_eq!(programmer.tables.log, expected);
    assert!(programmer.tables.services.is_empty());
}

#[test]
fn a_frontend_that_moves_is_overwritten() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    programmer.tables.log.clear();
    for changes in [
        [gone("a"), change("b", plan(&[(1, 80)], &[(2, 1)]))],
        [change("a", plan(&[(1, 80)], &[(1, 1)])), gone("b")],
    ] {
        programmer.apply(&changes);
    }
    assert_eq!(
        programmer.tables.log,
        ["put 10.96.0.1:80/TCP", "generation 1", "put 10.96.0.1:80/TCP", "generation 2"]
    );
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![1]));
}

#[test]
fn an_unknown_port_is_refused_while_the_address_is_in_use() {
    let mut programmer = programmer(Capacities::default());
    let any = FrontendKey::any_port([10, 96, 0, 1].into());
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)])), change("b", plan(&[(1, 81)], &[(1, 1)]))]);
    let entry = programmer.tables.frontends[&any];
    assert_eq!(
        (entry.service_port, entry.internal.len, entry.when_internal_empty),
        (0, 0, WhenEmpty::Reject)
    );
    programmer.apply(&[gone("a")]);
    assert!(programmer.tables.frontends.contains_key(&any));
    programmer.apply(&[gone("b")]);
    assert!(
        programmer.tables.frontends.is_empty() && programmer.tables.filter.values().all(|word| *word == 0)
    );
}

#[test]
fn an_endpoint_that_only_finishes_keeps_its_record() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1), (2, 1)]))]);
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 0), (2, 3)]))]);
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![2]));
    let records: Vec<_> = programmer.tables.backends.values().collect();
    assert!(records.iter().all(|record| is_live(record.generation)));
    assert_eq!((records[0].lists, records[1].lists), (0, 3));
}

#[test]
fn turning_affinity_on_starts_with_a_new_id() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    let before = programmer.tables.frontends[&key(1, 80)];
    let mut sticky = plan(&[(1, 80)], &[(1, 1)]);
    sticky.affinity_seconds = Some(30);
    let report = programmer.apply(&[change("a", sticky.clone())]);
    let after = programmer.tables.frontends[&key(1, 80)];
    assert_ne!(before.service_port, after.service_port);
    assert_eq!((after.affinity_seconds, report.backends_kept), (30, 1));
    assert_eq!(programmer.tables.services.keys().copied().collect::<Vec<_>>(), [after.service_port]);
    sticky.affinity_seconds = Some(60);
    programmer.apply(&[change("a", sticky)]);
    assert_eq!(programmer.tables.frontends[&key(1, 80)].service_port, after.service_port);
}

#[test]
fn a_local_policy_without_a_local_endpoint_drops() {
    let mut programmer = programmer(Capacities::default());
    let mut local = plan(&[(1, 80)], &[(1, 1)]);
    local.internal_local = true;
    programmer.apply(&[change("a", local)]);
    let entry = programmer.tables.frontends[&key(1, 80)];
    assert_eq!((entry.internal_list, entry.when_internal_empty), (EndpointList::Local, WhenEmpty::Drop));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![]));
}

#[test]
fn only_who_does_not_fit_is_refused_and_gets_in_later() {
    let mut programmer = programmer(SMALL);
    let six: Vec<_> = (1..=6).map(|n| (n, 1)).collect();
    let five: Vec<_> = (11..=15).map(|n| (n, 1)).collect();
    let report = programmer.apply(&[
        change("a", plan(&[(1, 80)], &six)),
        change("b", plan(&[(2, 80)], &five)),
        change("c", plan(&[(3, 80)], &[(1, 1)])),
    ]);
    assert_eq!(report.refused.len(), 1);
    let message = report.refused[0].reason.to_string();
    assert_eq!(message, "Service default/b:http: map BACKENDS4 is full (11 entries): raise --max-backends");
    assert_eq!(report.waiting, 1);
    assert_eq!(reach(&programmer, &key(3, 80)), Some(vec![1]));
    assert_eq!(reach(&programmer, &key(2, 80)), None);
    let report = programmer.apply(&[gone("a")]);
    assert_eq!((report.refused.len(), report.waiting), (0, 0));
    assert_eq!(reach(&programmer, &key(2, 80)), Some(vec![11, 12, 13, 14, 15]));
}

#[test]
fn a_refused_change_leaves_the_old_state() {
    let mut programmer = programmer(SMALL);
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    let many: Vec<_> = (1..=11).map(|n| (n, 1)).collect();
    for _ in 0..3 {
        let report = programmer.apply(&[change("a", plan(&[(1, 80)], &many))]);
        assert_eq!(report.refused.len(), 1);
        assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![1]));
    }
    let report =
        programmer.apply(&[change("b", plan(&[(2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6)], &[]))]);
    assert!(report.refused[0].reason.to_string().contains("FRONTENDS4"), "{report:?}");
    assert_eq!(programmer.backends[0].available(), 9);
}

#[test]
fn a_frontend_that_the_kernel_refuses_is_tried_again() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    programmer.tables.failing.insert(key(1, 80));
    let report = programmer.apply(&[change("a", plan(&[(1, 80)], &[(2, 1)]))]);
    assert_eq!((report.refused.len(), report.waiting), (1, 1));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![1]));
    let report = programmer.apply(&[change("a", plan(&[(1, 80)], &[(2, 1)]))]);
    assert_eq!((report.waiting, report.backends_removed), (0, 1));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![2]));
}

#[test]
fn an_entry_for_unknown_ports_that_the_kernel_refuses_is_tried_again() {
    let mut programmer = programmer(Capacities::default());
    let any = FrontendKey::any_port([10, 96, 0, 1].into());
    programmer.tables.failing.insert(any);
    let report = programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    assert_eq!((report.refused.len(), report.waiting), (1, 1));
    assert_eq!(reach(&programmer, &key(1, 80)), Some(vec![1]));
    let report = programmer.apply(&[]);
    assert_eq!((report.refused.len(), report.waiting), (0, 0));
    assert!(programmer.tables.frontends.contains_key(&any));
}

#[test]
fn a_damaged_entry_is_written_again() {
    let mut programmer = programmer(Capacities::default());
    let state = [(id("a"), Arc::new(plan(&[(1, 80)], &[(1, 1)])))];
    programmer.reconcile(&state);
    let good = programmer.tables.frontends[&key(1, 80)];
    for damaged in [Frontend { affinity_seconds: 9, ..good }, Frontend { seal: !good.seal, ..good }] {
        programmer.tables.frontends.insert(key(1, 80), damaged);
        programmer = restarted(programmer);
        assert_eq!(programmer.reconcile(&state).frontends_written, 1);
        let now = programmer.tables.frontends[&key(1, 80)];
        assert_eq!(key(1, 80).seal(now), now);
        assert_eq!((now.affinity_seconds, reach(&programmer, &key(1, 80))), (0, Some(vec![1])));
    }
}

#[test]
fn a_restart_keeps_ids_and_applies_the_difference() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[
        change("a", plan(&[(1, 80)], &[(1, 1), (2, 1)])),
        change("b", plan(&[(2, 80)], &[(3, 1)])),
        change("c", plan(&[(3, 80)], &[(4, 1)])),
    ]);
    let generations: Vec<_> = programmer.tables.backends.values().map(|backend| backend.generation).collect();
    let mut programmer = restarted(programmer);
    let report = programmer.reconcile(&[
        (id("a"), Arc::new(plan(&[(1, 80)], &[(1, 1), (2, 1)]))),
        (id("b"), Arc::new(plan(&[(2, 80)], &[(3, 1), (5, 1)]))),
    ]);
    assert_eq!((report.frontends_written, report.frontends_removed), (1, 2));
    assert_eq!((report.backends_added, report.backends_kept, report.backends_removed), (1, 3, 1));
    assert_eq!(reach(&programmer, &key(2, 80)), Some(vec![3, 5]));
    let kept: Vec<_> = programmer.tables.backends.values().map(|backend| backend.generation).collect();
    assert_eq!(kept[..3], generations[..3]);
    assert!(!is_live(kept[3]) && is_live(kept[4]) && programmer.len() == 2);
}

#[test]
fn what_a_killed_agent_left_half_done_is_put_right() {
    let mut programmer = programmer(Capacities::default());
    programmer.apply(&[change("a", plan(&[(1, 80), (1, 81)], &[(1, 1)]))]);
    // Half a flip, a backend without a service port, a name without a frontend, a lone entry, a stray bit.
    let half =
        Frontend { internal: SlotRange { base: 500, len: 1 }, ..programmer.tables.frontends[&key(1, 81)] };
    programmer.tables.slots.insert(500, 1);
    programmer.tables.frontends.insert(key(1, 81), key(1, 81).seal(half));
    let lost = Backend { service_port: 99, ..programmer.tables.backends[&(0, 1)] };
    programmer.tables.backends.insert((0, 40), lost);
    let name = programmer.tables.services[&1];
    programmer.tables.services.insert(7, name);
    let any = FrontendKey::any_port([10, 96, 0, 9].into());
    let entry = programmer.tables.frontends[&FrontendKey::any_port([10, 96, 0, 1].into())];
    programmer.tables.frontends.insert(any, any.seal(entry));
    programmer.tables.filter.insert(3, 4);
    // The entry for unknown ports has no service port and needs no filter bit here.
    let mut programmer = restarted(programmer);
    programmer.reconcile(&[(id("a"), Arc::new(plan(&[(1, 80), (1, 81)], &[(1, 1)])))]);
    assert_eq!(programmer.tables.frontends.len(), 3);
    assert_eq!(reach(&programmer, &key(1, 81)), Some(vec![1]));
    let (one, two) = (programmer.tables.frontends[&key(1, 80)], programmer.tables.frontends[&key(1, 81)]);
    assert_eq!(one.internal, two.internal);
    assert_eq!(programmer.tables.services.len(), 1);
    assert!(!is_live(programmer.tables.backends[&(0, 40)].generation));
    assert_eq!(programmer.tables.filter[&3], 0);
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u8, Option<ServicePortPlan>)>),
    /// The kernel refuses the next write of this frontend; of the entry for unknown ports for port 79.
    Fail(u8, u16),
    /// The kernel refuses the next write or deletion of this source range.
    FailRange(u8),
    Restart,
}

/// Ranges that do not overlap.
fn range(number: u8) -> IpNet {
    IpNet::new([192, 0, number, 0].into(), 24).unwrap()
}

fn any_plan() -> impl Strategy<Value = ServicePortPlan> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    let kind = prop::sample::select(&[ClusterIp, ClusterIp, ExternalIp, LoadBalancer, NodePort][..]);
    let frontends = prop::collection::btree_map((1..4_u8, 80..82_u16), kind, 1..3);
    let endpoints = prop::collection::btree_map(1..8_u8, 0..4_u8, 0..6);
    let policies = any::<(bool, bool)>();
    let ranges = prop::collection::btree_set(0..3_u8, 0..3);
    (frontends, endpoints, prop::option::of(Just(30_u32)), policies, ranges).prop_map(
        |(frontends, endpoints, affinity, (internal_local, external_local), ranges)| {
            let frontends = frontends.into_iter();
            let mut frontends: Vec<_> =
                frontends.map(|((address, port), kind)| frontend(kind, address, port)).collect();
            frontends.sort();
            let endpoints: Vec<_> = endpoints.into_iter().collect();
            ServicePortPlan {
                frontends,
                affinity_seconds: affinity,
                internal_local,
                external_local,
                source_ranges: ranges.into_iter().map(range).collect(),
                ..plan(&[], &endpoints)
            }
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((0..4_u8, prop::option::weighted(0.8, any_plan())), 1..4).prop_map(Step::Apply),
        1 => (1..4_u8, 79..82_u16).prop_map(|(address, port)| Step::Fail(address, port)),
        1 => (0..3_u8).prop_map(Step::FailRange),
        1 => Just(Step::Restart),
    ]
}

fn check(programmer: &Programmer<Memory>, refused_before: bool) {
    programmer.tables.check_readers();
    let mut owned = BTreeSet::new();
    for state in programmer.programmed.values() {
        let held = state.held.iter().flat_map(|held| held.ranges.iter().copied());
        for range in state.ranges.into_iter().flatten().chain(held) {
            for slot in range.base..range.base + range.len {
                assert!(owned.insert(slot), "slot {slot} belongs to two");
            }
        }
    }
    let slots = &programmer.slots;
    assert_eq!(
        owned.len(),
        (programmer.capacities.slots - slots.available() - slots.resting()) as usize,
        "a leak"
    );
    let held = |state: &Programmed| state.held.as_ref().map_or(0, |held| held.backends.len());
    let live: usize = programmer.programmed.values().map(|state| state.backends.len() + held(state)).sum();
    let ids = &programmer.backends[0];
    let capacity = programmer.capacities.backends4 as usize - 1;
    assert_eq!(live + ids.available() + ids.resting(), capacity, "a leak");
    let marked = programmer.tables.backends.values().filter(|backend| is_live(backend.generation)).count();
    assert_eq!(live, marked);
    let held = |state: &Programmed| state.held.as_ref().map_or(0, |held| held.service_ports.len());
    let named: usize = programmer.programmed.values().map(|state| 1 + held(state)).sum();
    assert_eq!(named, programmer.tables.services.len());
    let mut bits: BTreeMap<u32, u64> = BTreeMap::new();
    for key in programmer.tables.frontends.keys().filter(|key| !key.is_any_port()) {
        let (word, mask) = filter_position(key.address());
        *bits.entry(word).or_default() |= mask;
    }
    let set: BTreeMap<_, _> = programmer
        .tables
        .filter
        .iter()
        .filter(|(_, bits)| **bits != 0)
        .map(|(word, bits)| (*word, *bits))
        .collect();
    assert_eq!(set, bits);
    assert_eq!(programmer.frontend_counts, [programmer.tables.frontends.len(), 0]);
    let known: BTreeSet<_> = programmer.frontends.keys().copied().collect();
    assert_eq!(known, programmer.tables.frontends.keys().copied().collect());
    let mine: BTreeSet<_> =
        programmer.programmed.values().flat_map(|state| state.frontends.iter().copied()).collect();
    let stray = known.iter().find(|key| !key.is_any_port() && !mine.contains(*key));
    assert_eq!(stray, None, "a frontend that nobody knows of");
    let entries = programmer.tables.frontends.iter();
    let of_addresses =
        entries.filter(|(key, value)| !key.is_any_port() && value.kind == FrontendKind::ClusterIp);
    let cluster_ips: BTreeSet<_> =
        of_addresses.map(|(key, _)| FrontendKey::any_port(key.address())).collect();
    let any_ports: BTreeSet<_> = known.iter().filter(|key| key.is_any_port()).copied().collect();
    assert!(any_ports.is_subset(&cluster_ips), "an address that is no cluster IP refuses other ports");
    for (id, state) in &programmer.programmed {
        let entries = state.frontends.iter().filter_map(|key| programmer.tables.frontends.get(key));
        let mut own = entries.filter(|value| state.owns(value.service_port));
        let is_restricted = own.any(|value| value.flags & FRONTEND_SOURCE_RANGES != 0);
        assert!(state.restricted || !is_restricted, "{id}");
        if !refused_before {
            assert_eq!(state.restricted, is_restricted, "{id}");
        }
    }
    assert_eq!(programmer.sources.entries(), &programmer.tables.ranges);
    let held = |state: &Programmed| {
        state.held.iter().flat_map(|held| held.service_ports.clone()).collect::<Vec<_>>()
    };
    let ids: BTreeSet<_> = programmer
        .programmed
        .values()
        .flat_map(|state| [vec![state.service_port], held(state)].concat())
        .chain(programmer.unfinished.iter().copied())
        .collect();
    let stray = programmer.tables.ranges.iter().find(|range| !ids.contains(&range.service_port));
    assert_eq!(stray, None, "belongs to nobody");
    let only = programmer.programmed.values().filter(|state| state.restricted).count();
    assert_eq!(programmer.packet_path_only, only);
    if !refused_before {
        assert_eq!(any_ports, cluster_ips);
        for (id, state) in &programmer.programmed {
            for key in &state.frontends {
                assert!(programmer.tables.frontends.contains_key(key), "{id} has lost {key}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_happens_space_is_used_once_and_readers_are_safe(
        steps in prop::collection::vec(any_step(), 1..25),
        roomy in any::<bool>(),
    ) {
        let mut programmer = programmer(if roomy { Capacities { backends4: 64, slots: 64, frontends: 64, services: 16, source_ranges: 64, ..SMALL } } else { SMALL });
        let mut plans: BTreeMap<u8, Arc<ServicePortPlan>> = BTreeMap::new();
        let mut clash = false;
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    let changes: Vec<_> = changes
                        .into_iter()
                        .map(|(number, plan)| (number, plan.map(Arc::new)))
                        .collect();
                    for (number, plan) in &changes {
                        match plan {
                            Some(plan) => plans.insert(*number, Arc::clone(plan)),
                            None => plans.remove(number),
                        };
                    }
                    // Nobody here resolves clashes, as the planner does.
                    let frontends = plans.values().flat_map(|plan| &plan.frontends);
                    let keys: Vec<_> = frontends.map(|frontend| (frontend.address, frontend.port)).collect();
                    clash |= keys.iter().collect::<BTreeSet<_>>().len() < keys.len();
                    let changes: Vec<_> = changes
                        .into_iter()
                        .map(|(number, plan)| PlanChange { id: id(&format!("s{number}")), plan })
                        .collect();
                    let report = programmer.apply(&changes);
                    clash |= !report.refused.is_empty();
                    let full = |refused: &Refused| !matches!(refused.reason, RefusedReason::Kernel { .. });
                    prop_assert!(!roomy || !report.refused.iter().any(full));
                }
                Step::Fail(address, port) => {
                    let any = FrontendKey::any_port([10, 96, 0, address].into());
                    programmer.tables.failing.insert(if port == 79 { any } else { key(address, port) });
                }
                Step::FailRange(number) => drop(programmer.tables.failing_ranges.insert(range(number))),
                Step::Restart => {
                    programmer.tables.failing.clear();
                    programmer.tables.failing_ranges.clear();
                    programmer = restarted(programmer);
                    let complete: Vec<_> = plans
                        .iter()
                        .map(|(number, plan)| (id(&format!("s{number}")), Arc::clone(plan)))
                        .collect();
                    programmer.reconcile(&complete);
                }
            }
            check(&programmer, clash);
            if roomy && !clash {
                prop_assert_eq!(programmer.len(), plans.len());
                for (number, plan) in &plans {
                    let state = &programmer.programmed[&id(&format!("s{number}"))];
                    let found: Vec<_> = programmer.sources.of(state.service_port).map(|range| range.clients).collect();
                    let balanced = plan.frontends.iter().any(|frontend| frontend.kind == FrontendKind::LoadBalancer);
                    prop_assert_eq!(found, if balanced { plan.allowed_sources() } else { Vec::new() });
                }
            }
        }
    }
}
