//! What the maps of the packet path hold, in the model's own terms: one type for both families, and every
//! change undoable, so that a failure can be shown with the state before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_common::{
    Affinity, Direction, Family, Hook, NO_BACKEND, Onward, Protocol, Role, flow_filter_position4,
    flow_filter_position6,
};

/// A packet as it arrives: the key of a flow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: Protocol,
}

/// What the packets of one direction of a flow become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) last_seen: u64,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) backend: u32,
    pub(crate) generation: u32,
    pub(crate) service_port: u32,
    pub(crate) hook: Hook,
    pub(crate) peer_hook: Hook,
    pub(crate) direction: Direction,
    pub(crate) onward: Onward,
    pub(crate) peer_onward: Onward,
    pub(crate) seen: u8,
}

/// Which map a flow entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// `FLOWS4` and `FLOWS6`.
    Confirmed,
    /// `NEW_FLOWS4` and `NEW_FLOWS6`.
    New,
}

/// Key of `FRAGMENTS4` and `FRAGMENTS6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Datagram {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) id: u32,
    pub(crate) protocol: Protocol,
}

/// Key of `AFFINITY4` and `AFFINITY6`, for a client known by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) service_port: u32,
}

/// One entry of any map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    Flow(Table, Tuple, Option<Entry>),
    Fragment(Datagram, Option<(u16, u16)>),
    Affinity(Client, Option<Affinity>),
    /// A byte of `FLOW_FILTER`.
    Filter(u32, bool),
}

/// Everything that the maps hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) confirmed: BTreeMap<Tuple, Entry>,
    pub(crate) new: BTreeMap<Tuple, Entry>,
    pub(crate) fragments: BTreeMap<Datagram, (u16, u16)>,
    pub(crate) affinity: BTreeMap<Client, Affinity>,
    pub(crate) filter: BTreeSet<u32>,
    /// What each change since [`Self::begin`] replaced, in order.
    undo: Vec<Change>,
}

impl State {
    /// Forgets how to undo what was done so far.
    pub(crate) fn begin(&mut self) {
        self.undo.clear();
    }

    /// Takes back everything since [`Self::begin`].
    pub(crate) fn undo(&mut self) {
        for change in std::mem::take(&mut self.undo).into_iter().rev() {
            self.apply(change);
        }
    }

    /// Takes back everything since [`Self::begin`], and keeps in mind what was touched.
    pub(crate) fn undo_but_watch(&mut self) {
        let undo = self.undo.clone();
        self.undo();
        self.undo = undo;
    }

    /// Every entry.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Change> {
        let flows = |table, map: &BTreeMap<Tuple, Entry>| {
            let entries = map.iter().map(move |(tuple, entry)| Change::Flow(table, *tuple, Some(*entry)));
            entries.collect::<Vec<_>>()
        };
        let fragments = self.fragments.iter().map(|(key, ports)| Change::Fragment(*key, Some(*ports)));
        let affinity = self.affinity.iter().map(|(client, value)| Change::Affinity(*client, Some(*value)));
        let filter = self.filter.iter().map(|position| Change::Filter(*position, true));
        flows(Table::Confirmed, &self.confirmed)
            .into_iter()
            .chain(flows(Table::New, &self.new))
            .chain(fragments)
            .chain(affinity)
            .chain(filter)
    }

    /// What was touched since [`Self::begin`], as it is now.
    pub(crate) fn touched(&self) -> impl Iterator<Item = Change> {
        let each_once = self.undo.iter().enumerate().filter(|(at, change)| {
            !self.undo[..*at].iter().any(|earlier| earlier.emptied() == change.emptied())
        });
        each_once.map(|(_, change)| match *change {
            Change::Flow(table, tuple, _) => Change::Flow(table, tuple, self.flow(table, &tuple)),
            Change::Fragment(datagram, _) => {
                Change::Fragment(datagram, self.fragments.get(&datagram).copied())
            }
            Change::Affinity(client, _) => Change::Affinity(client, self.affinity.get(&client).copied()),
            Change::Filter(position, _) => Change::Filter(position, self.filter.contains(&position)),
        })
    }

    pub(crate) fn flow(&self, table: Table, tuple: &Tuple) -> Option<Entry> {
        match table {
            Table::Confirmed => self.confirmed.get(tuple).copied(),
            Table::New => self.new.get(tuple).copied(),
        }
    }

    /// Whether a key is in use in either table.
    pub(crate) fn is_taken(&self, tuple: &Tuple) -> bool {
        self.confirmed.contains_key(tuple) || self.new.contains_key(tuple)
    }

    /// Makes one change.
    pub(crate) fn set(&mut self, change: Change) {
        let before = self.apply(change);
        self.undo.push(before);
    }

    /// Says that an entry mattered, so that it is compared although it did not change.
    pub(crate) fn watch(&mut self, table: Table, tuple: Tuple) {
        let entry = self.flow(table, &tuple);
        self.undo.push(Change::Flow(table, tuple, entry));
    }

    /// Makes one change; the answer takes it back.
    fn apply(&mut self, change: Change) -> Change {
        match change {
            Change::Flow(table, tuple, entry) => {
                let map = if table == Table::New { &mut self.new } else { &mut self.confirmed };
                Change::Flow(table, tuple, put(map, tuple, entry))
            }
            Change::Fragment(datagram, ports) => {
                Change::Fragment(datagram, put(&mut self.fragments, datagram, ports))
            }
            Change::Affinity(client, affinity) => {
                Change::Affinity(client, put(&mut self.affinity, client, affinity))
            }
            Change::Filter(position, true) => Change::Filter(position, !self.filter.insert(position)),
            Change::Filter(position, false) => Change::Filter(position, self.filter.remove(&position)),
        }
    }
}

impl Change {
    /// The entry taken out.
    pub(crate) fn emptied(self) -> Self {
        match self {
            Self::Flow(table, tuple, _) => Self::Flow(table, tuple, None),
            Self::Fragment(datagram, _) => Self::Fragment(datagram, None),
            Self::Affinity(client, _) => Self::Affinity(client, None),
            Self::Filter(position, _) => Self::Filter(position, false),
        }
    }
}

impl Tuple {
    /// The same between the other ends: source and destination swapped.
    pub(crate) fn flip(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }
}

impl Entry {
    /// Whether these are a client's packets to an endpoint's own address.
    pub(crate) fn is_direct(&self) -> bool {
        self.backend == NO_BACKEND && self.direction == Direction::Forward
    }

    /// What a packet of this entry becomes.
    pub(crate) fn rewritten(&self, protocol: Protocol) -> Tuple {
        let Self { source, destination, source_port, destination_port, .. } = *self;
        Tuple { source, destination, source_port, destination_port, protocol }
    }
}

pub(crate) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Where an address stands in `FLOW_FILTER`.
pub(crate) fn filter_position(address: IpAddr, role: Role) -> u32 {
    match address {
        IpAddr::V4(address) => flow_filter_position4(bytemuck::cast(address.octets()), role),
        IpAddr::V6(address) => flow_filter_position6(bytemuck::cast(address.octets()), role),
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}
