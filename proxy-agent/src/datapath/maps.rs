//! The pinned maps, typed.

mod backends;
pub(crate) mod hash;
mod source_ranges;

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use proxy_common::{Backend4, Backend6, Counters, Family, Frontend, FrontendKey4, FrontendKey6, ServicePort};

use self::{backends::BackendTable, hash::HashTable, source_ranges::SourceRangeTable};
use super::{
    Error,
    mapped::MappedArray,
    programmer::Contents,
    sys,
    tables::{Backend, Capacities, Failures, FrontendKey, SourceRange, Tables},
};

/// How long a program run may hold what it has read, where the kernel cannot tell when the last one ends.
/// Runs take microseconds and cannot sleep.
const GRACE: Duration = Duration::from_secs(2);

/// Every map that the agent reads or writes.
#[derive(Debug)]
pub(crate) struct Maps {
    frontends4: HashTable<FrontendKey4, Frontend>,
    frontends6: HashTable<FrontendKey6, Frontend>,
    services: HashTable<u32, ServicePort>,
    source_ranges: SourceRangeTable,
    backends4: BackendTable<Backend4>,
    backends6: BackendTable<Backend6>,
    slots: MappedArray,
    filter: MappedArray,
    counters: OwnedFd,
}

impl Maps {
    /// Opens the maps that are pinned in `directory`; what is stored into read-only ones is lost.
    pub(crate) fn open(directory: &Path, read_only: bool) -> Result<Self, Error> {
        let open = |name: &str| {
            let path = directory.join(name);
            sys::open_pin(&path).map_err(Error::path("opening", path))
        };
        let array = |name: &'static str, value_size: usize| {
            let map = open(name)?;
            let shape = check_sizes(name, &map, 4, value_size)?;
            MappedArray::new(map, shape.max_entries, value_size, !read_only)
                .map_err(Error::map("mapping into memory", name))
        };
        Ok(Self {
            frontends4: HashTable::new("FRONTENDS4", open("FRONTENDS4")?)?,
            frontends6: HashTable::new("FRONTENDS6", open("FRONTENDS6")?)?,
            services: HashTable::new("SERVICES", open("SERVICES")?)?,
            source_ranges: SourceRangeTable::new(open("SOURCE_RANGES4")?, open("SOURCE_RANGES6")?)?,
            backends4: BackendTable::new(
                array("BACKENDS4", size_of::<Backend4>())?,
                "BACKEND_LOAD4",
                open("BACKEND_LOAD4")?,
            )?,
            backends6: BackendTable::new(
                array("BACKENDS6", size_of::<Backend6>())?,
                "BACKEND_LOAD6",
                open("BACKEND_LOAD6")?,
            )?,
            slots: array("SLOTS", size_of::<u32>())?,
            filter: array("ADDRESS_FILTER", size_of::<u64>())?,
            counters: open("COUNTERS")?,
        })
    }

    /// What the maps with keys hold.
    pub(crate) fn contents(&self) -> Result<Contents, Error> {
        let v4 = self.frontends4.entries()?.into_iter().map(|(key, value)| (FrontendKey::V4(key), value));
        let v6 = self.frontends6.entries()?.into_iter().map(|(key, value)| (FrontendKey::V6(key), value));
        Ok(Contents {
            services: self.services()?,
            source_ranges: self.source_ranges.entries()?,
            frontends: v4.chain(v6).collect(),
        })
    }

    /// The service ports, by their keys.
    pub(crate) fn services(&self) -> Result<Vec<(u32, ServicePort)>, Error> {
        self.services.entries()
    }

    /// The counters, summed over the CPUs.
    pub(crate) fn counters(&self) -> Result<Counters, Error> {
        sum_counters(&self.counters)
    }

    /// Open sockets of each of these backends.
    pub(crate) fn loads(&self, family: Family, ids: &[u32]) -> Result<Vec<u64>, Error> {
        if family == Family::V4 { self.backends4.loads(ids) } else { self.backends6.loads(ids) }
    }

    /// Gives back memory that nothing is programmed in.
    pub(crate) fn trim(&mut self) {
        self.backends4.trim();
        self.backends6.trim();
        self.slots.trim();
    }

    /// How many backends of a family there can be.
    pub(crate) fn backend_capacity(&self, family: Family) -> u32 {
        if family == Family::V4 { self.backends4.entries() } else { self.backends6.entries() }
    }

    /// How many entries the maps hold at most. Affinity is the kernel's alone.
    pub(crate) fn capacities(&self, asked: Capacities) -> Capacities {
        Capacities {
            slots: self.slots.entries(),
            backends4: self.backends4.entries(),
            backends6: self.backends6.entries(),
            ..asked
        }
    }
}

impl Tables for Maps {
    fn backend(&self, family: Family, id: u32) -> Option<Backend> {
        if family == Family::V4 { self.backends4.get(id) } else { self.backends6.get(id) }
    }

    fn generation(&self, family: Family, id: u32) -> u32 {
        if family == Family::V4 { self.backends4.generation(id) } else { self.backends6.generation(id) }
    }

    fn write_backend(&mut self, family: Family, id: u32, backend: &Backend) {
        if family == Family::V4 {
            self.backends4.write(id, backend);
        } else {
            self.backends6.write(id, backend);
        }
    }

    fn store_lists(&mut self, family: Family, id: u32, lists: u8) {
        if family == Family::V4 {
            self.backends4.store_lists(id, lists);
        } else {
            self.backends6.store_lists(id, lists);
        }
    }

    fn store_generation(&mut self, family: Family, id: u32, generation: u32) {
        if family == Family::V4 {
            self.backends4.store_generation(id, generation);
        } else {
            self.backends6.store_generation(id, generation);
        }
    }

    fn store_service_port(&mut self, family: Family, id: u32, service_port: u32) {
        if family == Family::V4 {
            self.backends4.store_service_port(id, service_port);
        } else {
            self.backends6.store_service_port(id, service_port);
        }
    }

    fn reset_loads(&mut self, family: Family, ids: &[u32]) -> Failures {
        if family == Family::V4 { self.backends4.reset_loads(ids) } else { self.backends6.reset_loads(ids) }
    }

    fn slot(&self, slot: u32) -> Option<u32> {
        self.slots.load(slot, 0)
    }

    fn write_slot(&mut self, slot: u32, backend: u32) {
        self.slots.store(slot, 0, backend);
    }

    fn filter_word(&self, word: u32) -> u64 {
        self.filter.load(word, 0).unwrap_or(0)
    }

    fn write_filter_word(&mut self, word: u32, bits: u64) {
        self.filter.store(word, 0, bits);
    }

    fn put_services(&mut self, entries: &[(u32, ServicePort)]) -> Failures {
        let (ids, names): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        self.services.put(&ids, &names)
    }

    fn remove_services(&mut self, ids: &[u32]) -> Failures {
        self.services.remove(ids)
    }

    fn put_source_ranges(&mut self, ranges: &[SourceRange]) -> Failures {
        self.source_ranges.put(ranges)
    }

    fn remove_source_ranges(&mut self, ranges: &[SourceRange]) -> Failures {
        self.source_ranges.remove(ranges)
    }

    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Failures {
        let (mut keys4, mut values4, mut places4) = (Vec::new(), Vec::new(), Vec::new());
        let (mut keys6, mut values6, mut places6) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (key, value)) in entries.iter().enumerate() {
            match key {
                FrontendKey::V4(key) => {
                    keys4.push(*key);
                    values4.push(*value);
                    places4.push(place);
                }
                FrontendKey::V6(key) => {
                    keys6.push(*key);
                    values6.push(*value);
                    places6.push(place);
                }
            }
        }
        let v4 = self.frontends4.put(&keys4, &values4).into_iter().map(|(at, error)| (places4[at], error));
        let v6 = self.frontends6.put(&keys6, &values6).into_iter().map(|(at, error)| (places6[at], error));
        v4.chain(v6).collect()
    }

    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Failures {
        let (mut keys4, mut places4, mut keys6, mut places6) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            match key {
                FrontendKey::V4(key) => {
                    keys4.push(*key);
                    places4.push(place);
                }
                FrontendKey::V6(key) => {
                    keys6.push(*key);
                    places6.push(place);
                }
            }
        }
        let v4 = self.frontends4.remove(&keys4).into_iter().map(|(at, error)| (places4[at], error));
        let v6 = self.frontends6.remove(&keys6).into_iter().map(|(at, error)| (places6[at], error));
        v4.chain(v6).collect()
    }

    fn wait_for_readers(&mut self, since: Instant) {
        if let Err(error) = sys::grace_period() {
            let rest = GRACE.saturating_sub(since.elapsed());
            tracing::debug!(%error, ?rest, "no RCU barrier on this kernel: waiting instead");
            std::thread::sleep(rest);
        }
    }
}

/// The value of `COUNTERS`, summed over the CPUs.
pub(crate) fn sum_counters(map: impl AsFd) -> Result<Counters, Error> {
    const WORDS: usize = size_of::<Counters>() / 8;
    check_sizes("COUNTERS", &map, 4, size_of::<Counters>())?;
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| Error::Path {
        doing: "reading",
        path: path.into(),
        source,
    })?;
    let mut values = vec![[0_u64; WORDS]; cpus];
    sys::lookup(&map, &[0; 4], bytemuck::cast_slice_mut(&mut values))
        .map_err(Error::map("reading", "COUNTERS"))?;
    let sum = values.iter().fold([0_u64; WORDS], |mut sum, value| {
        sum.iter_mut().zip(value).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
        sum
    });
    Ok(bytemuck::cast(sum))
}

/// Refuses a map whose entries are of other sizes than ours.
pub(crate) fn check_sizes(
    name: &'static str,
    map: impl AsFd,
    key_size: usize,
    value_size: usize,
) -> Result<sys::MapShape, Error> {
    let shape = sys::map_shape(map).map_err(Error::map("inspecting", name))?;
    if (shape.key_size as usize, shape.value_size as usize) == (key_size, value_size) {
        return Ok(shape);
    }
    let (key, value) = (shape.key_size, shape.value_size);
    let problem =
        format!("has keys of {key} and values of {value} bytes, expected {key_size} and {value_size}");
    Err(Error::Layout { map: name, problem })
}
