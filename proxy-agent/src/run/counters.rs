use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::source::kube;

/// What has happened to the agent since its start.
#[derive(Debug, Default)]
pub struct Counters {
    source: Arc<kube::Counters>,
    batches: AtomicU64,
    problems: AtomicU64,
    refused: AtomicU64,
    sync_errors: AtomicU64,
    waiting: AtomicU64,
}

impl Counters {
    /// Those of the API source; all 0 when objects come from manifests.
    #[must_use]
    pub fn source(&self) -> &Arc<kube::Counters> {
        &self.source
    }

    /// Steps from a set of changes to the data path.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// What of objects was skipped, refused or lost to another: each counts when it begins.
    #[must_use]
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// Service ports that the data path refused: no room, or a name too long.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Service ports that the kernel refused to take, and entries it refused to give up. Those are tried again.
    #[must_use]
    pub fn sync_errors(&self) -> u64 {
        self.sync_errors.load(Ordering::Relaxed)
    }

    /// Service ports that are not programmed as they should be, now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn add_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_problem(&self) {
        self.problems.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_sync_error(&self) {
        self.sync_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_waiting(&self, now: usize) {
        self.waiting.store(now as u64, Ordering::Relaxed);
    }
}
