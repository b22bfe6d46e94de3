use std::{fmt::Debug, io, marker::PhantomData, os::fd::OwnedFd};

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
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> HashTable<K, V>
where
    K: NoUninit + CheckedBitPattern + Debug,
    V: NoUninit + CheckedBitPattern,
{
    /// Takes over an open map, whose key and value must be as long as `K` and `V`.
    pub(crate) fn new(name: &'static str, map: OwnedFd) -> Result<Self, Error> {
        super::check_sizes(name, &map, size_of::<K>(), size_of::<V>())?;
        Ok(Self { name, map, types: PhantomData })
    }

    /// Every entry.
    ///
    /// # Errors
    /// An entry that is no `K` and `V`, or a failed system call.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let raw = match self.read_batches() {
            Err(error) if unsupported(&error) => self.read_one_by_one(),
            result => result,
        };
        let (keys, values) = raw.map_err(Error::map("reading", self.name))?;
        keys.chunks_exact(size_of::<K>())
            .zip(values.chunks_exact(size_of::<V>()))
            .map(|(key, value)| {
                let damaged = |key: String| Error::Damaged { map: self.name, key };
                let typed: K = try_pod_read_unaligned(key).map_err(|_| damaged(format!("{key:02x?}")))?;
                let value = try_pod_read_unaligned(value).map_err(|_| damaged(format!("{typed:?}")))?;
                Ok((typed, value))
            })
            .collect()
    }

    fn read_batches(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        let mut position = None;
        let mut room = CHUNK;
        loop {
            let (mut keys, mut values) = (vec![0; room * size_of::<K>()], vec![0; room * size_of::<V>()]);
            let count = u32::try_from(room).unwrap_or(u32::MAX);
            let BatchEnd { done, error } =
                sys::lookup_batch(&self.map, &mut position, count, &mut keys, &mut values);
            all_keys.extend_from_slice(&keys[..done * size_of::<K>()]);
            all_values.extend_from_slice(&values[..done * size_of::<V>()]);
            let Some(error) = error else { continue };
            match error.raw_os_error() {
                Some(libc::ENOENT) => return Ok((all_keys, all_values)),
                // A bucket has more entries than there was room for.
                Some(libc::ENOSPC) => room *= 2,
                _ => return Err(error),
            }
        }
    }

    fn read_one_by_one(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        let mut last: Option<Vec<u8>> = None;
        let mut key = vec![0; size_of::<K>()];
        while sys::next_key(&self.map, last.as_deref(), &mut key)? {
            let mut value = vec![0; size_of::<V>()];
            if sys::lookup(&self.map, &key, &mut value)? {
                all_keys.extend_from_slice(&key);
                all_values.extend_from_slice(&value);
            }
            last = Some(key.clone());
        }
        Ok((all_keys, all_values))
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
    use std::cell::RefCell;

    use super::*;

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
