use std::time::Duration;

use thiserror::Error;

use crate::plan::ServicePortId;

/// What one step did to the maps.
#[derive(Debug, Default)]
pub struct Report {
    /// Frontend entries inserted or replaced, the ones for unknown ports among them.
    pub frontends_written: usize,
    /// Frontend entries deleted.
    pub frontends_removed: usize,
    /// Frontend entries of the service ports in this step that were right already.
    pub frontends_unchanged: usize,
    /// Backend ids given out.
    pub backends_added: usize,
    /// Backend ids taken back.
    pub backends_removed: usize,
    /// Those of them that are UDP.
    pub udp_backends_removed: usize,
    /// Those of them that are TCP.
    pub tcp_backends_removed: usize,
    /// Backends of the service ports in this step that kept their id.
    pub backends_kept: usize,
    /// Service ports that keep their old state because of what went wrong in this step.
    pub refused: Vec<Refused>,
    /// How many service ports wait for room now, from this step and earlier ones.
    pub waiting: usize,
    /// Entries that could not be deleted, reset or named. They misdirect nobody: they take room, and a
    /// service port without a name gets new backend ids when the agent is restarted.
    pub problems: Vec<String>,
    /// From the call to the last write.
    pub duration: Duration,
}

/// A service port that was not programmed.
#[derive(Debug)]
pub struct Refused {
    /// Which one.
    pub id: ServicePortId,
    /// Why, and what to do.
    pub reason: RefusedReason,
}

/// Why a service port was not programmed.
#[derive(Debug, Error)]
pub enum RefusedReason {
    /// A map has no room.
    #[error("Service {service}: map {map} is full ({capacity} entries): raise {flag}")]
    Full {
        /// `namespace/name:port`.
        service: String,
        /// Name of the map.
        map: &'static str,
        /// Its capacity.
        capacity: u32,
        /// The flag of `proxy-agent run` that raises it.
        flag: &'static str,
    },
    /// The name does not fit into `SERVICES`.
    #[error("Service {service}: the name is longer than {max} bytes")]
    Name {
        /// `namespace/name:port`.
        service: String,
        /// Bytes that fit.
        max: usize,
    },
    /// The kernel refused a write.
    #[error("Service {service}: writing {what}: {error}; it is tried again with the next change")]
    Kernel {
        /// `namespace/name:port`.
        service: String,
        /// The entry.
        what: String,
        /// What the kernel said.
        error: std::io::Error,
    },
}

impl RefusedReason {
    /// One word for it, as in the reason of an event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full { .. } => "MapFull",
            Self::Name { .. } => "NameTooLong",
            Self::Kernel { .. } => "KernelRefused",
        }
    }
}
