use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened to sockets whose endpoint was gone, since the agent's start.
#[derive(Debug, Default)]
pub struct SocketTotals {
    pub(super) closed_udp: AtomicU64,
    pub(super) closed_tcp: AtomicU64,
    pub(super) unreachable: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl SocketTotals {
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

    pub(super) fn add(to: &AtomicU64, number: usize) {
        to.fetch_add(number as u64, Ordering::Relaxed);
    }
}
