use std::{fmt::Debug, io, marker::PhantomData, ops::ControlFlow, os::fd::OwnedFd};

use bytemuck::{CheckedBitPattern, NoUninit, checked::try_pod_read_unaligned};

use crate::datapath::{
    Error,
    sys::{self, BatchEnd},
    tables::Failures,
};

/// Entries per system call: 4,096 keys and values stay below a megabyte.
const CHUNK: usize = 4096;

/// A hash map, or one of longest prefixes, with typed keys and values.
#[derive(Debug)]
pub(crate) struct HashTable<K, V> {
    name: &'static str,
    map: OwnedFd,
    capacity: u32,
    types: PhantomData<fn(K) -> V>,
}

/// Some entries of a map, as the kernel handed them over.
pub(crate) struct Batch<'a, K, V> {
    keys: &'a [u8],
    values: &'a [u8],
    types: PhantomData<fn(K) -> V>,
}

impl<'a, K: CheckedBitPattern, V: CheckedBitPattern> Batch<'a, K, V> {
    /// Each entry, or the bytes of its key when it is no `K` and `V`.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<(K, V), &'a [u8]>> {
        let values = self.values.chunks_exact(size_of::<V>());
        self.keys.chunks_exact(size_of::<K>()).zip(values).map(|(key, value)| {
            let typed = try_pod_read_unaligned(key).and_then(|key| Ok((key, try_pod_read_unaligned(value)?)));
            typed.map_err(|_| key)
        })
    }
}

impl<K, V> HashTable<K, V>
where
    K: NoUninit + CheckedBitPattern + Debug,
    V: NoUninit + CheckedBitPattern,
{
    /// Takes over an open map, whose key and value must be as long as `K` and `V`.
    pub(crate) fn new(name: &'static str, map: OwnedFd) -> Result<Self, Error> {
        let shape = super::check_sizes(name, &map, size_of::<K>(), size_of::<V>())?;
        Ok(Self { name, map, capacity: shape.max_entries, types: PhantomData })
    }

    /// How many entries there can be.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Every entry.
    ///
    /// # Errors
    /// An entry that is no `K` and `V`, or a failed system call.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let mut entries = Vec::new();
        let mut damaged = None;
        self.walk(|batch| {
            for entry in batch.entries() {
                match entry {
                    Ok(entry) => entries.push(entry),
                    Err(key) => {
                        let typed = try_pod_read_unaligned::<K>(key).map(|key| format!("{key:?}"));
                        damaged = Some(typed.unwrap_or_else(|_| format!("{key:02x?}")));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        match damaged {
            Some(key) => Err(Error::Damaged { map: self.name, key }),
            None => Ok(entries),
        }
    }

    /// Goes through the map once, in batches in one buffer; `visit` may delete entries, and end the walk.
    ///
    /// What is inserted or deleted meanwhile is met or not. All else is met once, except that a kernel without
    /// batches may show some entries twice, or leave some out, when others are deleted.
    pub(crate) fn walk(
        &self,
        mut visit: impl FnMut(Batch<'_, K, V>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let walked = match self.walk_in_batches(&mut visit) {
            Err(error) if unsupported(&error) => self.walk_singly(&mut visit),
            result => result,
        };
        walked.map_err(Error::map("reading", self.name))
    }

    /// A batch ends with a whole bucket, and buckets are gone through in order: it ends, whatever is inserted.
    fn walk_in_batches(&self, visit: &mut impl FnMut(Batch<'_, K, V>) -> ControlFlow<()>) -> io::Result<()> {
        let mut position = None;
        let mut room = CHUNK;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        loop {
            keys.resize(room * size_of::<K>(), 0);
            values.resize(room * size_of::<V>(), 0);
            let count = u32::try_from(room).unwrap_or(u32::MAX);
            let BatchEnd { done, error } =
                sys::lookup_batch(&self.map, &mut position, count, &mut keys, &mut values);
            if done > 0 && visit(Self::batch(&keys, &values, done)).is_break() {
                return Ok(());
            }
            let Some(error) = error else { continue };
            match error.raw_os_error() {
                Some(libc::ENOENT) => return Ok(()),
                // A bucket has more entries than there was room for.
                Some(libc::ENOSPC) if room <= self.capacity as usize => room *= 2,
                _ => return Err(error),
            }
        }
    }

    /// An entry that is deleted before the one after it was asked for sends the walk back to the start: it is
    /// cut off after twice as many steps as there can be entries.
    fn walk_singly(&self, visit: &mut impl FnMut(Batch<'_, K, V>) -> ControlFlow<()>) -> io::Result<()> {
        let mut steps = self.capacity as usize * 2;
        let (mut keys, mut values) = (vec![0; CHUNK * size_of::<K>()], vec![0; CHUNK * size_of::<V>()]);
        let mut key = vec![0; size_of::<K>()];
        let mut is_there = sys::next_key(&self.map, None, &mut key)?;
        while is_there && steps > 0 {
            let mut read = 0;
            while is_there && steps > 0 && read < CHUNK {
                let value = &mut values[read * size_of::<V>()..][..size_of::<V>()];
                if sys::lookup(&self.map, &key, value)? {
                    keys[read * size_of::<K>()..][..size_of::<K>()].copy_from_slice(&key);
                    read += 1;
                }
                let last = key.clone();
                is_there = sys::next_key(&self.map, Some(&last), &mut key)?;
                steps -= 1;
            }
            if visit(Self::batch(&keys, &values, read)).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn batch<'a>(keys: &'a [u8], values: &'a [u8], entries: usize) -> Batch<'a, K, V> {
        let (keys, values) = (&keys[..entries * size_of::<K>()], &values[..entries * size_of::<V>()]);
        Batch { keys, values, types: PhantomData }
    }

    /// The value of a key; `None` also for one that is no `V`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = vec![0; size_of::<V>()];
        let found = sys::lookup(&self.map, sys::bytes(key), &mut value);
        let found = found.map_err(Error::map("reading", self.name))?;
        Ok(if found { try_pod_read_unaligned(&value).ok() } else { None })
    }

    /// Inserts one entry unless there is one; whether it did. A full map refuses it.
    pub(crate) fn insert(&self, key: &K, value: &V) -> io::Result<bool> {
        sys::insert(&self.map, sys::bytes(key), sys::bytes(value))
    }

    /// Deletes one entry by the bytes of its key; one that is not there counts as deleted.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), Error> {
        assert_eq!(key.len(), size_of::<K>(), "the kernel reads a whole key");
        sys::delete(&self.map, key).map_err(Error::map("deleting from", self.name))
    }

    /// Inserts or replaces entries, each in one atomic step. Returns those that failed.
    pub(crate) fn put(&mut self, keys: &[K], values: &[V]) -> Failures {
        in_batches(
            keys.len(),
            |from, to| sys::update_batch(&self.map, &keys[from..to], &values[from..to]),
            |at| sys::update(&self.map, sys::bytes(&keys[at]), sys::bytes(&values[at])),
        )
    }

    /// Deletes entries; one that is not there counts as deleted. Returns those that failed.
    pub(crate) fn remove(&mut self, keys: &[K]) -> Failures {
        in_batches(
            keys.len(),
            |from, to| sys::delete_batch(&self.map, &keys[from..to]),
            |at| sys::delete(&self.map, sys::bytes(&keys[at])),
        )
    }
}

/// Does `len` things in batches; what a batch stops at is done singly, and fails for itself alone.
pub(super) fn in_batches(
    len: usize,
    batch: impl Fn(usize, usize) -> BatchEnd,
    single: impl Fn(usize) -> io::Result<()>,
) -> Failures {
    let mut failures = Vec::new();
    let mut at = 0;
    // A handful is as quick singly, and needs no kernel support.
    let mut batches = len > 4;
    while at < len {
        if batches {
            let end = batch(at, len.min(at + CHUNK));
            at += end.done;
            let Some(error) = end.error else { continue };
            batches = !unsupported(&error);
        }
        if at < len {
            if let Err(error) = single(at) {
                failures.push((at, error));
            }
            at += 1;
        }
    }
    failures
}

/// Whether the kernel cannot do this kind of batch at all (`EINVAL`, or the kernel-internal `ENOTSUPP`).
fn unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, os::fd::AsFd};

    use aya::maps::MapData;
    use aya_obj::{
        EbpfSectionKind,
        maps::{LegacyMap, bpf_map_def},
    };

    use super::*;

    /// A map of the running kernel that holds its keys up to `entries`, doubled; `None` where none can be made.
    fn table(entries: u32) -> Option<HashTable<u32, u64>> {
        const BPF_MAP_TYPE_HASH: u32 = 1;
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let def = bpf_map_def {
            map_type: BPF_MAP_TYPE_HASH,
            key_size: 4,
            value_size: 8,
            max_entries: 20_000,
            ..Default::default()
        };
        let map = LegacyMap {
            def,
            inner_def: None,
            section_index: 0,
            section_kind: EbpfSectionKind::Maps,
            symbol_index: None,
            data: Vec::new(),
        };
        let map = MapData::create(aya_obj::Map::Legacy(map), "test", None).unwrap();
        let table = HashTable::new("test", map.fd().as_fd().try_clone_to_owned().unwrap()).unwrap();
        (0..entries).for_each(|key| assert!(table.insert(&key, &(u64::from(key) * 2)).unwrap()));
        Some(table)
    }

    #[test]
    fn every_entry_is_met_once_whichever_way_the_kernel_has() {
        let Some(table) = table(10_000) else { return };
        for singly in [false, true] {
            let (mut met, mut most) = (Vec::new(), 0);
            let mut visit = |batch: Batch<'_, u32, u64>| {
                let before = met.len();
                met.extend(batch.entries().map(Result::unwrap));
                most = most.max(met.len() - before);
                ControlFlow::Continue(())
            };
            let walked =
                if singly { table.walk_singly(&mut visit) } else { table.walk_in_batches(&mut visit) };
            walked.unwrap();
            met.sort_unstable();
            let all: Vec<_> = (0..10_000).map(|key| (key, u64::from(key) * 2)).collect();
            assert!(met == all && most <= CHUNK, "{} entries, {most} in a batch", met.len());
        }
    }

    #[test]
    fn a_walk_ends_though_entries_come_and_go() {
        let Some(table) = table(20_000) else { return };
        for singly in [false, true] {
            let mut batches = 0;
            // All that was met goes, and others come: without batches the next key is then that of the start.
            let mut visit = |batch: Batch<'_, u32, u64>| {
                batches += 1;
                for (key, _) in batch.entries().map(Result::unwrap) {
                    table.delete(sys::bytes(&key)).unwrap();
                    assert!(table.insert(&(key + 100_000), &1).unwrap());
                }
                ControlFlow::Continue(())
            };
            let walked =
                if singly { table.walk_singly(&mut visit) } else { table.walk_in_batches(&mut visit) };
            walked.unwrap();
            assert!((5..=12).contains(&batches), "{batches} batches");
        }
    }

    #[test]
    fn a_walk_goes_no_further_than_asked() {
        let Some(table) = table(10_000) else { return };
        for singly in [false, true] {
            let mut batches = 0;
            let mut visit = |_: Batch<'_, u32, u64>| {
                batches += 1;
                ControlFlow::Break(())
            };
            let walked =
                if singly { table.walk_singly(&mut visit) } else { table.walk_in_batches(&mut visit) };
            walked.unwrap();
            assert_eq!(batches, 1);
        }
    }

    #[test]
    fn an_entry_is_inserted_only_where_there_is_none() {
        let Some(table) = table(1) else { return };
        assert!(table.insert(&7, &70).unwrap() && !table.insert(&7, &71).unwrap());
        assert_eq!((table.get(&7).unwrap(), table.get(&8).unwrap()), (Some(70), None));
        (8..20_006).for_each(|key| assert!(table.insert(&key, &0).unwrap()));
        assert_eq!(table.insert(&30_000, &0).unwrap_err().raw_os_error(), Some(libc::E2BIG));
    }

    fn error(code: i32) -> Option<io::Error> {
        Some(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn a_bad_entry_fails_alone() {
        let done = RefCell::new(Vec::new());
        let failures = in_batches(
            10_000,
            |from, to| {
                // Entry 5,000 is bad: the batch stops there.
                let stop = if (from..to).contains(&5000) { 5000 } else { to };
                done.borrow_mut().extend(from..stop);
                BatchEnd { done: stop - from, error: if stop < to { error(libc::E2BIG) } else { None } }
            },
            |at| Err(io::Error::other(format!("{at}"))),
        );
        assert_eq!(failures.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [5000]);
        assert_eq!(done.into_inner(), (0..10_000).filter(|at| *at != 5000).collect::<Vec<_>>());
    }

    #[test]
    fn without_batches_everything_goes_singly() {
        let done = RefCell::new(Vec::new());
        let failures = in_batches(
            100,
            |_, _| BatchEnd { done: 0, error: error(libc::EINVAL) },
            |at| {
                done.borrow_mut().push(at);
                Ok(())
            },
        );
        assert!(failures.is_empty());
        assert_eq!(done.into_inner(), (0..100).collect::<Vec<_>>());
    }
}
