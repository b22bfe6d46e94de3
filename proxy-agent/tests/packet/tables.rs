//! The pinned maps, read and written entry by entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::PathBuf,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use bytemuck::{AnyBitPattern, NoUninit, checked};
use proxy_common::{
    Affinity, Backend4, Backend6, Counters, FLOW_FILTER_BYTES, Family, Frontend, Link, LinkRole, Protocol,
};

use crate::{
    codec::{self, V4, V6},
    flows::{Change, Client, Datagram, Entry, State, Table, Tuple, family},
    place::Place,
};

const COUNTERS: usize = size_of::<Counters>() / 8;

type Hash<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;

/// The maps that packets change, and those that they only read.
pub(crate) struct Tables {
    confirmed4: Hash<16, 48>,
    confirmed6: Hash<40, 72>,
    new4: Hash<16, 48>,
    new6: Hash<40, 72>,
    fragments4: Hash<16, 4>,
    fragments6: Hash<40, 4>,
    affinity4: Hash<16, 16>,
    affinity6: Hash<24, 16>,
    filter: Array<MapData, u8>,
    counters: PerCpuArray<MapData, [u64; COUNTERS]>,
    backends4: Array<MapData, [u8; 16]>,
    backends6: Array<MapData, [u8; 32]>,
    frontends4: Hash<8, 40>,
    frontends6: Hash<20, 40>,
    links: Hash<4, 24>,
}

/// What the packet programs need to know of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) lists: u8,
    pub(crate) generation: u32,
    pub(crate) service_port: u32,
    pub(crate) protocol: Protocol,
}

impl Tables {
    /// Opens the maps that are pinned at `pins`.
    pub(crate) fn open(pins: &[PathBuf]) -> Self {
        let pin = |name: &str| {
            let path = pins.iter().find(|path| path.ends_with(name));
            MapData::from_pin(path.unwrap_or_else(|| panic!("{name} is not pinned"))).unwrap()
        };
        Self {
            confirmed4: hash(Map::HashMap(pin("FLOWS4"))),
            confirmed6: hash(Map::HashMap(pin("FLOWS6"))),
            new4: hash(Map::LruHashMap(pin("NEW_FLOWS4"))),
            new6: hash(Map::LruHashMap(pin("NEW_FLOWS6"))),
            fragments4: hash(Map::LruHashMap(pin("FRAGMENTS4"))),
            fragments6: hash(Map::LruHashMap(pin("FRAGMENTS6"))),
            affinity4: hash(Map::LruHashMap(pin("AFFINITY4"))),
            affinity6: hash(Map::LruHashMap(pin("AFFINITY6"))),
            filter: Map::Array(pin("FLOW_FILTER")).try_into().unwrap(),
            counters: Map::PerCpuArray(pin("COUNTERS")).try_into().unwrap(),
            backends4: Map::Array(pin("BACKENDS4")).try_into().unwrap(),
            backends6: Map::Array(pin("BACKENDS6")).try_into().unwrap(),
            frontends4: hash(Map::HashMap(pin("FRONTENDS4"))),
            frontends6: hash(Map::HashMap(pin("FRONTENDS6"))),
            links: hash(Map::HashMap(pin("LINKS"))),
        }
    }

    /// Tells the programs about the links of the node.
    pub(crate) fn fill_links(&mut self, place: &Place) {
        let record = |link: &crate::place::Link, role| Link {
            address4: link.masquerade4.octets(),
            address6: link.masquerade6.octets(),
            role,
            xdp: u8::from(link.xdp),
            xdp_first: u8::from(link.xdp_first),
            reserved: 0,
        };
        let mut put = |index: u32, link: Link| {
            self.links.insert(index.to_ne_bytes(), bytes::<_, 24>(&link), 0).unwrap();
        };
        put(0, Link { xdp: 0, xdp_first: 0, ..record(place.named("up0"), LinkRole::Workload) });
        for link in place.links.iter().filter(|link| link.role != LinkRole::None) {
            put(link.index, record(link, link.role));
        }
    }

    pub(crate) fn flow(&self, table: Table, tuple: &Tuple) -> Option<Entry> {
        match (family(tuple.source), table) {
            (Family::V4, Table::Confirmed) => flow_of::<V4, 16, 48>(&self.confirmed4, tuple),
            (Family::V4, Table::New) => flow_of::<V4, 16, 48>(&self.new4, tuple),
            (_, Table::Confirmed) => flow_of::<V6, 40, 72>(&self.confirmed6, tuple),
            (_, Table::New) => flow_of::<V6, 40, 72>(&self.new6, tuple),
        }
    }

    pub(crate) fn affinity(&self, client: &Client) -> Option<Affinity> {
        let value = match codec::affinity_key(client) {
            codec::AffinityKey::V4(key) => get(&self.affinity4, &bytes(&key)),
            codec::AffinityKey::V6(key) => get(&self.affinity6, &bytes(&key)),
        };
        value.map(checked::cast)
    }

    /// What the maps hold where `change` says something.
    pub(crate) fn now(&self, change: &Change) -> Change {
        match change {
            Change::Flow(table, tuple, _) => Change::Flow(*table, *tuple, self.flow(*table, tuple)),
            Change::Fragment(datagram, _) => Change::Fragment(*datagram, self.fragment(datagram)),
            Change::Affinity(client, _) => Change::Affinity(*client, self.affinity(client)),
            Change::Filter(position, _) => {
                Change::Filter(*position, self.filter.get(position, 0).unwrap() != 0)
            }
        }
    }

    /// Writes one entry, or takes it out.
    pub(crate) fn put(&mut self, change: &Change) {
        match change {
            Change::Flow(table, tuple, entry) => match (family(tuple.source), table) {
                (Family::V4, Table::Confirmed) => put_flow::<V4, 16, 48>(&mut self.confirmed4, tuple, entry),
                (Family::V4, Table::New) => put_flow::<V4, 16, 48>(&mut self.new4, tuple, entry),
                (_, Table::Confirmed) => put_flow::<V6, 40, 72>(&mut self.confirmed6, tuple, entry),
                (_, Table::New) => put_flow::<V6, 40, 72>(&mut self.new6, tuple, entry),
            },
            Change::Fragment(datagram, ports) => {
                let ports = ports.map(|ports| bytes(&codec::fragment_ports(ports)));
                match codec::fragment_key(datagram) {
                    codec::FragmentKey::V4(key) => put(&mut self.fragments4, bytes(&key), ports),
                    codec::FragmentKey::V6(key) => put(&mut self.fragments6, bytes(&key), ports),
                }
            }
            Change::Affinity(client, affinity) => {
                let affinity = affinity.map(|affinity| bytes(&affinity));
                match codec::affinity_key(client) {
                    codec::AffinityKey::V4(key) => put(&mut self.affinity4, bytes(&key), affinity),
                    codec::AffinityKey::V6(key) => put(&mut self.affinity6, bytes(&key), affinity),
                }
            }
            Change::Filter(position, set) => self.filter.set(*position, u8::from(*set), 0).unwrap(),
        }
    }

    /// The bytes of `FLOW_FILTER` that are set.
    pub(crate) fn filter(&self) -> BTreeSet<u32> {
        (0..FLOW_FILTER_BYTES).filter(|at| self.filter.get(at, 0).unwrap() != 0).collect()
    }

    /// Everything that the maps hold, but for `FLOW_FILTER`.
    pub(crate) fn state(&self) -> State {
        let mut state = State::default();
        state.fragments = self.fragments();
        state.affinity = self.affinities();
        for (map, table) in [(&self.confirmed4, Table::Confirmed), (&self.new4, Table::New)] {
            let entries =
                map.iter().map(Result::unwrap).map(|(key, value)| codec::flow::<V4, 16, 48>(key, value));
            entries.for_each(|(tuple, entry)| state.set(Change::Flow(table, tuple, Some(entry))));
        }
        for (map, table) in [(&self.confirmed6, Table::Confirmed), (&self.new6, Table::New)] {
            let entries =
                map.iter().map(Result::unwrap).map(|(key, value)| codec::flow::<V6, 40, 72>(key, value));
            entries.for_each(|(tuple, entry)| state.set(Change::Flow(table, tuple, Some(entry))));
        }
        state
    }

    /// The counters, summed over the CPUs.
    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        let values = self.counters.get(&0, 0).unwrap();
        std::array::from_fn(|at| values.iter().map(|counters| counters[at]).sum())
    }

    /// A backend, by its id.
    pub(crate) fn backend(&self, family: Family, id: u32) -> Backend {
        if family == Family::V4 {
            let bytes = self.backends4.get(&id, 0).unwrap();
            let Backend4 { address, port, lists, protocol, generation, service_port } = checked::cast(bytes);
            Backend { address: address.into(), port, lists, protocol, generation, service_port }
        } else {
            let bytes = self.backends6.get(&id, 0).unwrap();
            let Backend6 { address, port, lists, protocol, generation, service_port, .. } =
                checked::cast(bytes);
            Backend { address: address.into(), port, lists, protocol, generation, service_port }
        }
    }

    /// The entry of a frontend.
    pub(crate) fn frontend(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<Frontend> {
        let value = match codec::frontend_key(address, port, protocol) {
            codec::FrontendKey::V4(key) => get(&self.frontends4, &bytes(&key)),
            codec::FrontendKey::V6(key) => get(&self.frontends6, &bytes(&key)),
        };
        value.map(checked::cast)
    }

    fn fragment(&self, datagram: &Datagram) -> Option<(u16, u16)> {
        let value = match codec::fragment_key(datagram) {
            codec::FragmentKey::V4(key) => get(&self.fragments4, &bytes(&key)),
            codec::FragmentKey::V6(key) => get(&self.fragments6, &bytes(&key)),
        };
        value.map(codec::ports_of_fragment)
    }

    fn fragments(&self) -> BTreeMap<Datagram, (u16, u16)> {
        let v4 = self.fragments4.iter().map(Result::unwrap).map(|(key, ports)| {
            (codec::datagram(codec::FragmentKey::V4(checked::cast(key))), codec::ports_of_fragment(ports))
        });
        let v6 = self.fragments6.iter().map(Result::unwrap).map(|(key, ports)| {
            (codec::datagram(codec::FragmentKey::V6(checked::cast(key))), codec::ports_of_fragment(ports))
        });
        v4.chain(v6).collect()
    }

    fn affinities(&self) -> BTreeMap<Client, Affinity> {
        let v4 = self.affinity4.iter().map(Result::unwrap).map(|(key, value)| {
            (codec::client(codec::AffinityKey::V4(checked::cast(key))), checked::cast(value))
        });
        let v6 = self.affinity6.iter().map(Result::unwrap).map(|(key, value)| {
            (codec::client(codec::AffinityKey::V6(checked::cast(key))), checked::cast(value))
        });
        v4.chain(v6).collect()
    }
}

fn hash<const K: usize, const V: usize>(map: Map) -> Hash<K, V> {
    map.try_into().unwrap()
}

fn bytes<T: NoUninit, const N: usize>(value: &T) -> [u8; N] {
    bytemuck::bytes_of(value).try_into().unwrap()
}

fn flow_of<F: codec::Flows, const K: usize, const V: usize>(map: &Hash<K, V>, tuple: &Tuple) -> Option<Entry>
where
    [u8; K]: AnyBitPattern,
    [u8; V]: AnyBitPattern,
{
    let key = bytes(&F::key(tuple));
    get(map, &key).map(|value| codec::flow::<F, K, V>(key, value).1)
}

fn put_flow<F: codec::Flows, const K: usize, const V: usize>(
    map: &mut Hash<K, V>,
    tuple: &Tuple,
    entry: &Option<Entry>,
) {
    put(map, bytes(&F::key(tuple)), entry.map(|entry| bytes(&F::value(tuple, &entry))));
}

fn get<const K: usize, const V: usize>(map: &Hash<K, V>, key: &[u8; K]) -> Option<[u8; V]> {
    match map.get(key, 0) {
        Ok(value) => Some(value),
        Err(MapError::KeyNotFound) => None,
        Err(error) => panic!("{error}"),
    }
}

fn put<const K: usize, const V: usize>(map: &mut Hash<K, V>, key: [u8; K], value: Option<[u8; V]>) {
    match value {
        Some(value) => map.insert(key, value, 0).unwrap(),
        None => match map.remove(&key) {
            Ok(()) => {}
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        },
    }
}
