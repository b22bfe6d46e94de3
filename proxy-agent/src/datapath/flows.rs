//! The flows of the packet path, as the agent sees them: it lets go of those that have expired, shows them, and
//! carries them over to maps of another size.

mod carry;
mod collect;
mod collector;
mod entry;
mod lifetimes;
mod list;
mod table;
mod watch;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use proxy_common::{FlowKey4, FlowKey6};
use rustix::time::{ClockId, clock_gettime};

use self::table::Table;
use super::{Error, maps::check_sizes, pins, sys};

pub use carry::Carried;
pub use collect::{Fill, Pass};
pub(crate) use collector::Collector;
pub use lifetimes::Lifetimes;
pub use list::FlowView;

/// The pinned flow maps.
#[derive(Debug)]
pub struct Flows {
    v4: Tables<FlowKey4>,
    v6: Tables<FlowKey6>,
    /// `FLOW_FILTER`.
    filter: OwnedFd,
}

/// The flow maps of one family.
#[derive(Debug)]
struct Tables<K: entry::Key> {
    confirmed: Table<K>,
    new: Table<K>,
}

impl Flows {
    /// Opens the flow maps that are in use below `bpffs`, whether or not an agent is running.
    ///
    /// # Errors
    /// [`Error::NothingPinned`], or maps that are not readable.
    pub fn open(bpffs: &Path) -> Result<Self, Error> {
        let directory = pins::current_flows(bpffs)?;
        Self::open_pins(|map| directory.join(map))
    }

    /// Opens the flow maps, each pinned where `pin` says.
    pub(crate) fn open_pins(pin: impl Fn(&str) -> PathBuf) -> Result<Self, Error> {
        let filter = open("FLOW_FILTER", &pin)?;
        check_sizes("FLOW_FILTER", &filter, 4, 1)?;
        Ok(Self { v4: Tables::open(&pin)?, v6: Tables::open(&pin)?, filter })
    }
}

impl<K: entry::Key> Tables<K> {
    fn open(pin: &impl Fn(&str) -> PathBuf) -> Result<Self, Error> {
        let [confirmed, new] = K::MAPS;
        Ok(Self {
            confirmed: Table::new(confirmed, open(confirmed, pin)?, true)?,
            new: Table::new(new, open(new, pin)?, false)?,
        })
    }

    fn all(&self) -> [&Table<K>; 2] {
        [&self.confirmed, &self.new]
    }
}

fn open(map: &str, pin: &impl Fn(&str) -> PathBuf) -> Result<OwnedFd, Error> {
    let path = pin(map);
    sys::open_pin(&path).map_err(Error::path("opening", path))
}

/// Time of the monotonic clock, by which the programs say when a flow was last seen.
#[must_use]
pub fn monotonic_now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Nanoseconds as the programs write them.
fn nanoseconds(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
