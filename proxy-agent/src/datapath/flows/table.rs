use std::{io, ops::ControlFlow, os::fd::OwnedFd};

use super::entry::{Entry, Key};
use crate::datapath::{
    Error,
    maps::hash::{Batch, HashTable},
    sys,
};

/// One of the flow maps.
#[derive(Debug)]
pub(super) struct Table<K: Key> {
    entries: HashTable<K, K::Flow>,
    /// Whether it holds the confirmed flows.
    pub(super) is_confirmed: bool,
}

impl<K: Key> Table<K> {
    pub(super) fn new(name: &'static str, map: OwnedFd, is_confirmed: bool) -> Result<Self, Error> {
        Ok(Self { entries: HashTable::new(name, map)?, is_confirmed })
    }

    /// How many entries there can be, two of each flow.
    pub(super) fn capacity(&self) -> u32 {
        self.entries.capacity()
    }

    /// Goes through the map once; see [`HashTable::walk`].
    pub(super) fn walk(
        &self,
        visit: impl FnMut(Batch<'_, K, K::Flow>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.entries.walk(visit)
    }

    pub(super) fn get(&self, key: K) -> Result<Option<Entry<K>>, Error> {
        Ok(self.entries.get(&key)?.map(|flow| key.entry(&flow)))
    }

    /// The other direction's entry. One that belongs to another flow by now is none.
    pub(super) fn other(&self, entry: &Entry<K>) -> Result<Option<Entry<K>>, Error> {
        Ok(self.get(entry.other)?.filter(|other| other.other == entry.key))
    }

    /// The value of a key, as it is.
    pub(super) fn value(&self, key: K) -> Result<Option<K::Flow>, Error> {
        self.entries.get(&key)
    }

    /// Inserts an entry unless there is one; whether it did. A full map refuses it.
    pub(super) fn insert(&self, key: K, flow: &K::Flow) -> io::Result<bool> {
        self.entries.insert(&key, flow)
    }

    pub(super) fn delete(&self, key: K) -> Result<(), Error> {
        self.entries.delete(sys::bytes(&key))
    }

    /// Deletes the entry of a key that is no `K`.
    pub(super) fn delete_damaged(&self, key: &[u8]) -> Result<(), Error> {
        self.entries.delete(key)
    }
}
