use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What has happened to sockets whose endpoint was gone, since the agent's start.
#[derive(Debug, Default)]
pub struct SocketTotals {
    pub(super) passes: AtomicU64,
    pub(super) closed_udp: AtomicU64,
    pub(super) closed_tcp: AtomicU64,
    pub(super) unreachable: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed_passes: AtomicU64,
    pub(super) last_pass_nanoseconds: AtomicU64,
}

impl SocketTotals {
    /// How many times all sockets were looked through.
    #[must_use]
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// UDP sockets that were closed.
    #[must_use]
    pub fn closed_udp(&self) -> u64 {
        self.closed_udp.load(Ordering::Relaxed)
    }

    /// TCP connections that were closed.
    #[must_use]
    pub fn closed_tcp(&self) -> u64 {
        self.closed_tcp.load(Ordering::Relaxed)
    }

    /// Sockets that could not be closed because their network namespace could not be entered. One counts each time
    /// that it is tried.
    #[must_use]
    pub fn unreachable(&self) -> u64 {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Sockets that the kernel did not close when it was asked to. One counts each time that it is tried.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Times that the sockets could not be looked through.
    #[must_use]
    pub fn failed_passes(&self) -> u64 {
        self.failed_passes.load(Ordering::Relaxed)
    }

    /// How long the last look took, with the closing.
    #[must_use]
    pub fn last_pass(&self) -> Duration {
        Duration::from_nanos(self.last_pass_nanoseconds.load(Ordering::Relaxed))
    }

    pub(super) fn add(to: &AtomicU64, number: usize) {
        to.fetch_add(number as u64, Ordering::Relaxed);
    }
}
