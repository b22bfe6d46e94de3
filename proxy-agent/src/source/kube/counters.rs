use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Requests;

/// What has happened to the source so far.
#[derive(Debug, Default)]
pub struct Counters {
    unreadable: AtomicU64,
    lists: AtomicU64,
    lost: AtomicU64,
    watches: Mutex<BTreeMap<&'static str, bool>>,
    requests: Requests,
}

impl Counters {
    /// Objects that could not be read; each counts once for each time the server sent it.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Complete lists.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Requests that failed and watches that broke.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Every request to the API server, those of events too.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Whether there is a watch that the server has granted and that has not broken, by kind of object.
    #[must_use]
    pub fn watches(&self) -> BTreeMap<&'static str, bool> {
        self.all_watches().clone()
    }

    pub(super) fn set_watch(&self, kind: &'static str, open: bool) {
        self.all_watches().insert(kind, open);
    }

    fn all_watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        // Every change to it is complete, whoever panics.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_list(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}
