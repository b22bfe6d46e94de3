use std::{collections::BTreeSet, io, ops::ControlFlow, time::Duration};

use proxy_common::Direction;

use super::{Flows, Lifetimes, Tables, entry::Key, nanoseconds, table::Table};
use crate::datapath::{Error, sys};

/// What became of the flows of an earlier set of maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Flows that are in the new maps now and were not before.
    pub copied: usize,
    /// Flows that did not fit.
    pub refused: usize,
}

impl Flows {
    /// Copies all flows that have not expired into other maps. What is there already stays as it is, so it may be
    /// done again for what was opened in between. `now` is of the monotonic clock.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn carry_over(&self, to: &Self, lifetimes: &Lifetimes, now: Duration) -> Result<Carried, Error> {
        let mut carrier = Carrier {
            lifetimes,
            now: nanoseconds(now),
            carried: Carried::default(),
            addresses: BTreeSet::new(),
        };
        carrier.family(&self.v4, &to.v4)?;
        carrier.family(&self.v6, &to.v6)?;
        for position in carrier.addresses {
            sys::update(&to.filter, &position.to_ne_bytes(), &[1])
                .map_err(Error::map("writing", "FLOW_FILTER"))?;
        }
        Ok(carrier.carried)
    }
}

struct Carrier<'a> {
    lifetimes: &'a Lifetimes,
    /// Nanoseconds of the monotonic clock.
    now: u64,
    carried: Carried,
    /// Bytes of `FLOW_FILTER` that let the packets of these flows be looked up.
    addresses: BTreeSet<u32>,
}

impl Carrier<'_> {
    fn family<K: Key>(&mut self, from: &Tables<K>, to: &Tables<K>) -> Result<(), Error> {
        self.table(&from.confirmed, &to.confirmed, &to.new)?;
        self.table(&from.new, &to.new, &to.confirmed)
    }

    /// `beside` is where programs that use the new maps already may have put a flow of the same packets.
    fn table<K: Key>(&mut self, from: &Table<K>, to: &Table<K>, beside: &Table<K>) -> Result<(), Error> {
        let mut outcome = Ok(());
        from.walk(|batch| {
            // Each flow is met twice, and taken once.
            let mut forward = batch
                .entries()
                .flatten()
                .filter(|(key, flow)| key.entry(flow).direction == Direction::Forward);
            outcome = forward.try_for_each(|(key, flow)| {
                if beside.get(key)?.is_some() { Ok(()) } else { self.flow(from, to, key, &flow) }
            });
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome
    }

    fn flow<K: Key>(&mut self, from: &Table<K>, to: &Table<K>, key: K, flow: &K::Flow) -> Result<(), Error> {
        let entry = key.entry(flow);
        let Some(reply) = from.value(entry.other)? else { return Ok(()) };
        let other = entry.other.entry(&reply);
        let left =
            self.lifetimes.left(key.protocol(), from.is_confirmed, entry.side, Some(other.side), self.now);
        if other.other != key || left.is_none() {
            return Ok(());
        }
        // Also for one that is there already: an agent that was killed on the way has not come to it.
        self.addresses.insert(key.filter_position(Direction::Forward));
        self.addresses.insert(entry.other.filter_position(Direction::Reply));
        match insert_both(to, (entry.other, &reply), (key, flow)) {
            Ok(is_new) => self.carried.copied += usize::from(is_new),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => self.carried.refused += 1,
            Err(error) => {
                return Err(Error::map("copying flows into", K::MAPS[usize::from(!to.is_confirmed)])(error));
            }
        }
        Ok(())
    }
}

/// Inserts the two entries of a flow, or neither; whether it did.
fn insert_both<K: Key>(to: &Table<K>, reply: (K, &K::Flow), forward: (K, &K::Flow)) -> io::Result<bool> {
    if !to.insert(reply.0, reply.1)? {
        return Ok(false);
    }
    let inserted = to.insert(forward.0, forward.1);
    if !matches!(inserted, Ok(true)) {
        // A half would keep the source port, and nothing else.
        let _gone_already = to.delete(reply.0);
    }
    inserted
}
