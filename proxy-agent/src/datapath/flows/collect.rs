use std::{ops::ControlFlow, time::Duration};

use proxy_common::Direction;

use super::{
    Flows, Lifetimes, Tables,
    entry::{Entry, Key},
    nanoseconds,
    table::Table,
};
use crate::datapath::Error;

/// What a pass over the flow maps has found and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// `FLOWS4`.
    pub v4: Fill,
    /// `FLOWS6`.
    pub v6: Fill,
    /// `NEW_FLOWS4` and `NEW_FLOWS6`.
    pub new: Fill,
    /// Flows that had expired and were deleted.
    pub expired: usize,
    /// Entries that made no sense and were deleted.
    pub damaged: usize,
}

/// How full a map was when it was gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Entries that were met, those that had expired among them; two of each flow.
    pub entries: usize,
    /// Entries there can be.
    pub capacity: usize,
}

impl Fill {
    /// In percent, rounded down.
    #[must_use]
    pub fn percent(&self) -> usize {
        (self.entries * 100).checked_div(self.capacity).unwrap_or(0)
    }
}

impl Flows {
    /// Goes through all flows once and deletes those that have expired, both directions of each. `now` is of the
    /// monotonic clock. It takes the memory of one batch, and ends however many flows are opened meanwhile.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn collect(&self, lifetimes: &Lifetimes, now: Duration) -> Result<Pass, Error> {
        self.collect_until(lifetimes, now, true, || false)
    }

    /// As [`Self::collect`], cut short once `stopping` says so. Without `halves`, entries whose other half is
    /// missing are taken for whole flows: to find them costs four times as much where most flows are idle.
    pub(super) fn collect_until(
        &self,
        lifetimes: &Lifetimes,
        now: Duration,
        halves: bool,
        stopping: impl Fn() -> bool,
    ) -> Result<Pass, Error> {
        let mut pass = Pass::default();
        let collector = Collection { lifetimes, now: nanoseconds(now), halves, stopping: &stopping };
        pass.v4 = collector.family(&self.v4, &mut pass)?;
        pass.v6 = collector.family(&self.v6, &mut pass)?;
        Ok(pass)
    }
}

struct Collection<'a> {
    lifetimes: &'a Lifetimes,
    /// Nanoseconds of the monotonic clock.
    now: u64,
    halves: bool,
    stopping: &'a dyn Fn() -> bool,
}

impl Collection<'_> {
    /// How full the map of confirmed flows was.
    fn family<K: Key>(&self, tables: &Tables<K>, pass: &mut Pass) -> Result<Fill, Error> {
        let new = self.table(&tables.new, pass)?;
        pass.new.entries += new.entries;
        pass.new.capacity += new.capacity;
        self.table(&tables.confirmed, pass)
    }

    fn table<K: Key>(&self, table: &Table<K>, pass: &mut Pass) -> Result<Fill, Error> {
        let mut met = 0;
        let mut outcome = Ok(());
        table.walk(|batch| {
            for entry in batch.entries() {
                met += 1;
                outcome = match entry {
                    Ok((key, flow)) => self.entry(table, &key.entry(&flow)).map(|gone| {
                        pass.expired += usize::from(gone);
                    }),
                    Err(key) => {
                        pass.damaged += 1;
                        table.delete_damaged(key)
                    }
                };
                if outcome.is_err() {
                    return ControlFlow::Break(());
                }
            }
            if (self.stopping)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        outcome.map(|()| Fill { entries: met, capacity: table.capacity() as usize })
    }

    /// Deletes the flow of an entry if it has expired; whether it did.
    fn entry<K: Key>(&self, table: &Table<K>, entry: &Entry<K>) -> Result<bool, Error> {
        let (protocol, side) = (entry.key.protocol(), entry.side);
        if !self.lifetimes.may_have_expired(protocol, table.is_confirmed, side, self.now, self.halves) {
            return Ok(false);
        }
        let other = table.other(entry)?;
        if !self.has_expired(table, entry, other.as_ref()) {
            return Ok(false);
        }
        // The batch is milliseconds old: packets may have come, or the flow may be another one by now.
        let Some(entry) = table.get(entry.key)? else { return Ok(false) };
        let other = table.other(&entry)?;
        if !self.has_expired(table, &entry, other.as_ref()) {
            return Ok(false);
        }
        delete(table, &entry, other.as_ref()).map(|()| true)
    }

    fn has_expired<K: Key>(&self, table: &Table<K>, entry: &Entry<K>, other: Option<&Entry<K>>) -> bool {
        let (protocol, other) = (entry.key.protocol(), other.map(|other| other.side));
        self.lifetimes.left(protocol, table.is_confirmed, entry.side, other, self.now).is_none()
    }
}

/// The forward entry goes first: a packet of the client's that comes in between opens the flow anew. Were the
/// reply entry gone first, the packet would go to the endpoint, and the answer would come back as it is.
fn delete<K: Key>(table: &Table<K>, entry: &Entry<K>, other: Option<&Entry<K>>) -> Result<(), Error> {
    let (first, second) = match (entry.direction, other) {
        (Direction::Reply, Some(forward)) => (forward, Some(entry)),
        (_, other) => (entry, other),
    };
    table.delete(first.key)?;
    second.map_or(Ok(()), |second| table.delete(second.key))
}
