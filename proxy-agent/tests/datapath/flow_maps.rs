//! Flow maps that a test fills as the programs would.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use bytemuck::{NoUninit, Zeroable};
use proxy_common::{
    Direction, Flow4, Flow6, FlowKey4, FlowKey6, Hook, Onward, Protocol, flow_seal4, flow_seal6, seen,
};

/// Where the sources of [`Filled4`] are masqueraded: an address of the node's.
const NODE: [u8; 4] = [10, 0, 0, 1];

/// The flow maps of a directory.
pub(crate) struct Maps {
    v4: [Table<16, 48>; 2],
    v6: [Table<40, 72>; 2],
    filter: Array<MapData, u8>,
}

impl Maps {
    pub(crate) fn open(directory: &Path) -> Self {
        let pin = |name: &str| MapData::from_pin(directory.join(name)).unwrap();
        Self {
            v4: [Table::confirmed(pin("FLOWS4")), Table::new(pin("NEW_FLOWS4"))],
            v6: [Table::confirmed(pin("FLOWS6")), Table::new(pin("NEW_FLOWS6"))],
            filter: Map::Array(pin("FLOW_FILTER")).try_into().unwrap(),
        }
    }

    pub(crate) fn v4(&self, confirmed: bool) -> &Table<16, 48> {
        &self.v4[usize::from(!confirmed)]
    }

    pub(crate) fn v6(&self, confirmed: bool) -> &Table<40, 72> {
        &self.v6[usize::from(!confirmed)]
    }

    pub(crate) fn filter(&self, position: u32) -> bool {
        self.filter.get(&position, 0).unwrap() == 1
    }
}

/// A flow map with the sizes of its keys and values.
pub(crate) struct Table<const K: usize, const V: usize>(
    std::cell::RefCell<HashMap<MapData, [u8; K], [u8; V]>>,
);

/// The bytes of a flow's two entries: forward, reply.
pub(crate) trait Filled<const K: usize, const V: usize> {
    fn entries(&self) -> [([u8; K], [u8; V]); 2];
}

fn at(direction: Direction) -> usize {
    usize::from(direction == Direction::Reply)
}

impl<const K: usize, const V: usize> Table<K, V> {
    fn confirmed(map: MapData) -> Self {
        Self(HashMap::try_from(Map::HashMap(map)).unwrap().into())
    }

    fn new(map: MapData) -> Self {
        Self(HashMap::try_from(Map::LruHashMap(map)).unwrap().into())
    }

    pub(crate) fn put(&self, flow: &impl Filled<K, V>) {
        assert!(self.try_put(flow), "the map is full");
    }

    /// Both entries, or what fits of them.
    pub(crate) fn try_put(&self, flow: &impl Filled<K, V>) -> bool {
        let mut map = self.0.borrow_mut();
        flow.entries().iter().all(|(key, value)| map.insert(key, value, 0).is_ok())
    }

    pub(crate) fn put_one(&self, flow: &impl Filled<K, V>, direction: Direction) {
        let (key, value) = flow.entries()[at(direction)];
        self.0.borrow_mut().insert(key, value, 0).unwrap();
    }

    /// A value that no program writes.
    pub(crate) fn spoil(&self, flow: &impl Filled<K, V>, direction: Direction) {
        let (key, _) = flow.entries()[at(direction)];
        self.0.borrow_mut().insert(key, [0xff; V], 0).unwrap();
    }

    /// A packet of now, if the entry is there.
    pub(crate) fn refresh(&self, flow: &impl Filled<K, V>, direction: Direction, now: Duration) -> bool {
        const BPF_EXIST: u64 = 2;
        let (key, mut value) = flow.entries()[at(direction)];
        value[..8].copy_from_slice(&nanoseconds(now).to_ne_bytes());
        self.0.borrow_mut().insert(key, value, BPF_EXIST).is_ok()
    }

    pub(crate) fn remove(&self, flow: &impl Filled<K, V>) {
        for (key, _) in flow.entries() {
            self.0.borrow_mut().remove(&key).unwrap();
        }
    }

    /// Whether the forward and the reply entry are there.
    pub(crate) fn has(&self, flow: &impl Filled<K, V>) -> [bool; 2] {
        [Direction::Forward, Direction::Reply].map(|direction| self.value(flow, direction).is_some())
    }

    pub(crate) fn value(&self, flow: &impl Filled<K, V>, direction: Direction) -> Option<[u8; V]> {
        match self.0.borrow().get(&flow.entries()[at(direction)].0, 0) {
            Err(MapError::KeyNotFound) => None,
            value => Some(value.unwrap()),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

fn bytes<T: NoUninit, const N: usize>(of: &T) -> [u8; N] {
    bytemuck::bytes_of(of).try_into().unwrap()
}

/// A flow from a client outside to an endpoint on the node, both directions seen just now.
#[derive(Clone)]
pub(crate) struct Filled4 {
    entries: [(FlowKey4, Flow4); 2],
}

/// As [`Filled4`], for IPv6.
#[derive(Clone)]
pub(crate) struct Filled6 {
    entries: [(FlowKey6, Flow6); 2],
}

pub(crate) fn client4(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::new([198, 18 + a, b, c].into(), 4000)
}

pub(crate) fn client6(number: u32) -> SocketAddr {
    let [a, b, c, d] = number.to_be_bytes();
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[12..].copy_from_slice(&[a, b, c, d]);
    SocketAddr::new(address.into(), 4000)
}

impl Filled4 {
    pub(crate) fn new(number: u32, protocol: Protocol, now: Duration) -> Self {
        let IpAddr::V4(client) = client4(number).ip() else { panic!("not IPv4") };
        let key = FlowKey4 {
            source: client.octets(),
            destination: [192, 0, 2, 9],
            source_port: 4000,
            destination_port: 80,
            protocol,
            reserved: [0; 3],
        };
        let flow = Flow4 {
            last_seen: nanoseconds(now),
            source: key.source,
            source_port: key.source_port,
            destination: [10, 244, 0, 3],
            destination_port: 8080,
            hook: Hook::UplinkIngress,
            peer_hook: Hook::UplinkEgress,
            onward: Onward::Stack,
            seen: seen::PACKET,
            ..Flow4::zeroed()
        };
        Self { entries: [(key, flow); 2] }.paired()
    }

    /// Makes the reply entry what the forward entry asks for.
    fn paired(mut self) -> Self {
        let [(key, flow), (other, reply)] = &mut self.entries;
        other.source = flow.destination;
        other.source_port = flow.destination_port;
        other.destination = flow.source;
        other.destination_port = flow.source_port;
        reply.source = key.destination;
        reply.source_port = key.destination_port;
        reply.destination = key.source;
        reply.destination_port = key.source_port;
        reply.direction = Direction::Reply;
        (reply.hook, reply.peer_hook) = (flow.peer_hook, flow.hook);
        flow.seal = flow_seal4(key);
        reply.seal = flow_seal4(other);
        self
    }

    /// What each direction has shown, and how many seconds ago it was seen last.
    pub(crate) fn seen(mut self, forward: (u8, u64), reply: (u8, u64)) -> Self {
        for ((_, flow), (bits, age)) in self.entries.iter_mut().zip([forward, reply]) {
            flow.seen = seen::PACKET | bits;
            flow.last_seen -= age * 1_000_000_000;
        }
        self
    }

    pub(crate) fn of(mut self, service_port: u32) -> Self {
        self.entries.iter_mut().for_each(|(_, flow)| flow.service_port = service_port);
        self
    }

    pub(crate) fn masqueraded(mut self) -> Self {
        let (_, flow) = &mut self.entries[0];
        (flow.source, flow.source_port) = (NODE, 1024);
        self.paired()
    }

    /// Leaves its endpoint and source to be those of `other`.
    pub(crate) fn with_reply_key_of(mut self, other: &Self) -> Self {
        let (_, taken) = other.entries[0];
        let (_, flow) = &mut self.entries[0];
        (flow.source, flow.source_port) = (taken.source, taken.source_port);
        self.paired()
    }

    pub(crate) fn frontend(&self) -> [u8; 4] {
        self.entries[0].0.destination
    }

    pub(crate) fn endpoint(&self) -> [u8; 4] {
        self.entries[1].0.source
    }

    pub(crate) fn frontend_address(&self) -> SocketAddr {
        (self.frontend(), self.entries[0].0.destination_port).into()
    }

    pub(crate) fn endpoint_address(&self) -> SocketAddr {
        (self.endpoint(), self.entries[1].0.source_port).into()
    }

    pub(crate) fn masquerade(&self) -> SocketAddr {
        (self.entries[1].0.destination, self.entries[1].0.destination_port).into()
    }
}

impl Filled6 {
    pub(crate) fn new(number: u32, protocol: Protocol, now: Duration) -> Self {
        let IpAddr::V6(client) = client6(number).ip() else { panic!("not IPv6") };
        let (mut frontend, mut endpoint) = ([0; 16], [0; 16]);
        (frontend[0], frontend[15], endpoint[0], endpoint[15]) = (0xfc, 9, 0xfc, 3);
        let key = FlowKey6 {
            source: client.octets(),
            destination: frontend,
            source_port: 4000,
            destination_port: 80,
            protocol,
            reserved: [0; 3],
        };
        let other = FlowKey6 {
            source: endpoint,
            destination: key.source,
            source_port: 8080,
            destination_port: key.source_port,
            ..key
        };
        let flow = Flow6 {
            last_seen: nanoseconds(now),
            source: key.source,
            source_port: key.source_port,
            destination: endpoint,
            destination_port: other.source_port,
            hook: Hook::UplinkIngress,
            peer_hook: Hook::UplinkEgress,
            seen: seen::PACKET,
            seal: flow_seal6(&key),
            ..Flow6::zeroed()
        };
        let reply = Flow6 {
            source: frontend,
            source_port: key.destination_port,
            destination: key.source,
            destination_port: key.source_port,
            hook: Hook::UplinkEgress,
            peer_hook: Hook::UplinkIngress,
            direction: Direction::Reply,
            seal: flow_seal6(&other),
            ..flow
        };
        Self { entries: [(key, flow), (other, reply)] }
    }

    /// As [`Filled4::seen`].
    pub(crate) fn seen(mut self, forward: (u8, u64), reply: (u8, u64)) -> Self {
        for ((_, flow), (bits, age)) in self.entries.iter_mut().zip([forward, reply]) {
            flow.seen = seen::PACKET | bits;
            flow.last_seen -= age * 1_000_000_000;
        }
        self
    }

    pub(crate) fn of(mut self, service_port: u32) -> Self {
        self.entries.iter_mut().for_each(|(_, flow)| flow.service_port = service_port);
        self
    }

    pub(crate) fn frontend(&self) -> [u8; 16] {
        self.entries[0].0.destination
    }
}

impl Filled<16, 48> for Filled4 {
    fn entries(&self) -> [([u8; 16], [u8; 48]); 2] {
        self.entries.map(|(key, flow)| (bytes(&key), bytes(&flow)))
    }
}

impl Filled<40, 72> for Filled6 {
    fn entries(&self) -> [([u8; 40], [u8; 72]); 2] {
        self.entries.map(|(key, flow)| (bytes(&key), bytes(&flow)))
    }
}
