use std::{
    collections::{BTreeMap, HashMap},
    str,
    time::Instant,
};

use proxy_common::{FRONTEND_SOURCE_RANGES, Family, Frontend, NO_SERVICE_PORT, ServicePort, is_live};

use super::{Entry, Held, Programmed, Programmer, entries::Vacated, index, list_index, sources::Sources};
use crate::{
    datapath::{
        alloc::{Ids, Ranges},
        tables::{Capacities, FrontendKey, SourceRange, Tables},
    },
    plan::ServicePortId,
    state::ObjectName,
};

/// What the maps with keys hold when the agent starts; all of it is empty in new maps.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) services: Vec<(u32, ServicePort)>,
    pub(crate) frontends: Vec<(FrontendKey, Frontend)>,
    pub(crate) source_ranges: Vec<SourceRange>,
}

impl<T: Tables> Programmer<T> {
    /// Takes over tables as they are. `seed` is any random number.
    ///
    /// Nothing is taken on trust: what is inconsistent (an agent may have been killed between two writes)
    /// is kept out of the way and put right by the first [`Self::reconcile`].
    pub(crate) fn new(tables: T, capacities: Capacities, contents: Contents, seed: u32) -> Self {
        let mut programmer = Self {
            tables,
            capacities,
            seed: seed & !1,
            service_ports: Ids::new(capacities.services),
            backends: [Ids::new(capacities.backends4), Ids::new(capacities.backends6)],
            slots: Ranges::new(capacities.slots),
            freed_at: Instant::now(),
            frontends: HashMap::new(),
            frontend_counts: [0; 2],
            addresses: HashMap::new(),
            sources: Sources::default(),
            unfinished: Vec::new(),
            filter: HashMap::new(),
            programmed: HashMap::new(),
            packet_path_only: 0,
            orphans: Vec::new(),
            waiting: HashMap::new(),
            lifted: false,
            stumbled: false,
        };
        programmer.read_back(contents);
        programmer
    }

    fn read_back(&mut self, contents: Contents) {
        let Contents { services, frontends, source_ranges } = contents;
        let mut found: BTreeMap<(u32, usize), Programmed> = BTreeMap::new();
        for (key, value) in &frontends {
            self.read_frontend(*key, value, &mut found);
        }
        for range in source_ranges {
            self.sources.insert(range);
            let owner = (range.service_port, index(range.family()));
            found.entry(owner).or_default().service_port = range.service_port;
        }
        let mut used_before = false;
        for family in [Family::V4, Family::V6] {
            used_before |= self.read_backends(family, &mut found);
        }
        let used = found.keys().map(|(id, _)| *id).chain(services.iter().map(|(id, _)| *id));
        self.service_ports = Ids::with_used(self.capacities.services, used);
        for (service_port, name) in services {
            let state = found.remove(&(service_port, index(name.family))).unwrap_or_default();
            let state = Programmed { service_port, ..state };
            match identity(&name) {
                Some(id) if !self.programmed.contains_key(&id) => {
                    self.put_in(id, state);
                }
                _ => self.orphans.push((name.family, state)),
            }
        }
        for ((_, family), state) in found {
            self.orphans.push((if family == 0 { Family::V4 } else { Family::V6 }, state));
        }
        self.adopt_lone_entries();
        if used_before {
            // The agent before may have given something back just before it ended.
            self.tables.wait_for_readers(Instant::now());
        }
    }

    fn read_frontend(
        &mut self,
        key: FrontendKey,
        value: &Frontend,
        found: &mut BTreeMap<(u32, usize), Programmed>,
    ) {
        // The programs do not believe an entry with a broken seal: whatever is planned, it is written again.
        let seal = if key.seal(*value).seal == value.seal { value.seal } else { 0 };
        let entry = Entry::new(&key, &Frontend { seal, ..*value });
        self.set_entry(key, entry, &mut Vacated::default());
        if key.is_any_port() {
            return;
        }
        let state = found.entry((value.service_port, index(key.family()))).or_default();
        state.service_port = value.service_port;
        state.affinity |= value.affinity_seconds > 0;
        state.restricted |= value.flags & FRONTEND_SOURCE_RANGES != 0;
        push(&mut state.frontends, key);
        for (range, list) in [(value.internal, value.internal_list), (value.external, value.external_list)] {
            let Some(position) = list_index(list) else { continue };
            if state.ranges[position] == Some(range) || !self.slots.reserve(range) {
                continue;
            }
            if state.ranges[position].is_none() {
                state.ranges[position] = Some(range);
            } else {
                // The flip was under way: other frontends of the service port have another range.
                state.held.get_or_insert_with(Box::<Held>::default).ranges.push(range);
            }
        }
    }

    /// True when any id of the family was ever given out.
    fn read_backends(&mut self, family: Family, found: &mut BTreeMap<(u32, usize), Programmed>) -> bool {
        let capacity = self.capacities.backends(family);
        let mut live: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut used_before = false;
        for id in 1..capacity {
            let generation = self.tables.generation(family, id);
            used_before |= generation != 0;
            if is_live(generation) {
                let owner =
                    self.tables.backend(family, id).map_or(NO_SERVICE_PORT, |backend| backend.service_port);
                live.entry(owner).or_default().push(id);
            }
        }
        self.backends[index(family)] = Ids::with_used(capacity, live.values().flatten().copied());
        for (service_port, ids) in live {
            let state = found.entry((service_port, index(family))).or_default();
            state.service_port = service_port;
            state.backends = ids.into();
        }
        used_before
    }

    /// Entries for unknown ports whose address is no cluster IP.
    fn adopt_lone_entries(&mut self) {
        let lone: Vec<_> = self
            .frontends
            .keys()
            .filter(|key| key.is_any_port() && !self.has_cluster_ip(key.address()))
            .copied()
            .collect();
        for key in lone {
            let state = Programmed { frontends: [key].into(), ..Programmed::default() };
            self.orphans.push((key.family(), state));
        }
    }
}

fn push(keys: &mut Box<[FrontendKey]>, key: FrontendKey) {
    let mut all = std::mem::take(keys).into_vec();
    all.push(key);
    *keys = all.into();
}

/// The service port that a `SERVICES` entry names, or `None` when it is not a name.
pub(crate) fn identity(entry: &ServicePort) -> Option<ServicePortId> {
    let end = entry.name.iter().position(|byte| *byte == 0).unwrap_or(entry.name.len());
    let (namespace, rest) = str::from_utf8(&entry.name[..end]).ok()?.split_once('/')?;
    let (name, port_name) = rest.split_once(':').unwrap_or((rest, ""));
    Some(ServicePortId {
        service: ObjectName::new(namespace, name),
        port_name: port_name.into(),
        protocol: entry.protocol,
        family: entry.family,
    })
}
