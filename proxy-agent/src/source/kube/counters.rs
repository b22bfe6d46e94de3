use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened to the source so far.
#[derive(Debug, Default)]
pub struct Counters {
    unreadable: AtomicU64,
    lists: AtomicU64,
    lost: AtomicU64,
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
