use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proxy_common::Counters;

use super::{Error, flows::Pass, maps::sum_counters};

/// What the kernel's side has counted and how full its maps are, for those who watch it from other threads.
#[derive(Clone, Debug)]
pub struct Probe(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The map `COUNTERS`.
    counters: OwnedFd,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Of what the agent programs.
    programmed: Vec<MapUsage>,
    attached: Vec<AttachedProgram>,
    last: Pass,
    collected: Collected,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// Its name. `NEW_FLOWS` stands for those of both families.
    pub map: &'static str,
    /// Entries in use, those that rest before they can be used again among them. Of flows, two for each, as of the last
    /// time that all were looked at.
    pub entries: usize,
    /// Entries there can be.
    pub capacity: usize,
}

/// Where a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Its name.
    pub program: &'static str,
    /// The links that it is on; for one of the socket path, 1 when it is on the cgroup.
    pub places: usize,
}

/// What those who let go of expired flows have done since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Times that all flows were looked at.
    pub passes: u64,
    /// Flows that had expired.
    pub expired: u64,
}

impl Probe {
    pub(crate) fn new(counters: OwnedFd) -> Self {
        Self(Arc::new(Inner { counters, seen: Mutex::default() }))
    }

    /// Sums over all CPUs since the maps were made.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Counters, Error> {
        sum_counters(&self.0.counters)
    }

    /// How full the maps are that can fill up; none before the first step.
    #[must_use]
    pub fn usage(&self) -> Vec<MapUsage> {
        let seen = self.seen();
        let Pass { v4, v6, new, .. } = seen.last;
        let flows = [("FLOWS4", v4), ("FLOWS6", v6), ("NEW_FLOWS", new)].map(|(map, fill)| MapUsage {
            map,
            entries: fill.entries,
            capacity: fill.capacity,
        });
        seen.programmed.iter().copied().chain(flows).collect()
    }

    /// Where each program is; none before the first step.
    #[must_use]
    pub fn attached(&self) -> Vec<AttachedProgram> {
        self.seen().attached.clone()
    }

    /// What has become of expired flows.
    #[must_use]
    pub fn collected(&self) -> Collected {
        self.seen().collected
    }

    pub(crate) fn set_programmed(&self, usage: Vec<MapUsage>) {
        self.seen().programmed = usage;
    }

    pub(crate) fn set_attached(&self, attached: Vec<AttachedProgram>) {
        self.seen().attached = attached;
    }

    pub(crate) fn add_pass(&self, pass: &Pass) {
        let mut seen = self.seen();
        seen.last = *pass;
        seen.collected.passes += 1;
        seen.collected.expired += pass.expired as u64;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change to it is complete, whoever panics.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
