//! Between the model's types and the maps' own, which differ by family.

use std::net::IpAddr;

use bytemuck::{CheckedBitPattern, NoUninit, Zeroable, checked};
use proxy_common::{
    AffinityKey4, AffinityKey6, ClientKind, Flow4, Flow6, FlowKey4, FlowKey6, FragmentKey4, FragmentKey6,
    FragmentPorts, FrontendKey4, FrontendKey6, Protocol, flow_seal4, flow_seal6,
};

use crate::flows::{Client, Datagram, Entry, Tuple};

/// The flow maps of one family.
pub(crate) trait Flows {
    type Key: NoUninit + CheckedBitPattern;
    type Value: NoUninit + CheckedBitPattern;

    fn key(tuple: &Tuple) -> Self::Key;
    fn tuple(key: &Self::Key) -> Tuple;
    fn value(tuple: &Tuple, entry: &Entry) -> Self::Value;
    /// The entry, and whether seal and reserved fields are as they should be.
    fn entry(key: &Self::Key, value: &Self::Value) -> (Entry, bool);
}

pub(crate) struct V4;
pub(crate) struct V6;

pub(crate) enum FragmentKey {
    V4(FragmentKey4),
    V6(FragmentKey6),
}

pub(crate) enum AffinityKey {
    V4(AffinityKey4),
    V6(AffinityKey6),
}

pub(crate) enum FrontendKey {
    V4(FrontendKey4),
    V6(FrontendKey6),
}

macro_rules! flows {
    ($family:ident, $key:ident, $value:ident, $seal:ident, $octets:ident) => {
        impl Flows for $family {
            type Key = $key;
            type Value = $value;

            fn key(tuple: &Tuple) -> $key {
                $key {
                    source: $octets(tuple.source),
                    destination: $octets(tuple.destination),
                    source_port: tuple.source_port,
                    destination_port: tuple.destination_port,
                    protocol: tuple.protocol,
                    reserved: [0; 3],
                }
            }

            fn tuple(key: &$key) -> Tuple {
                Tuple {
                    source: key.source.into(),
                    destination: key.destination.into(),
                    source_port: key.source_port,
                    destination_port: key.destination_port,
                    protocol: key.protocol,
                }
            }

            fn value(tuple: &Tuple, entry: &Entry) -> $value {
                $value {
                    last_seen: entry.last_seen,
                    source: $octets(entry.source),
                    destination: $octets(entry.destination),
                    source_port: entry.source_port,
                    destination_port: entry.destination_port,
                    backend: entry.backend,
                    generation: entry.generation,
                    service_port: entry.service_port,
                    hook: entry.hook,
                    peer_hook: entry.peer_hook,
                    direction: entry.direction,
                    onward: entry.onward,
                    peer_onward: entry.peer_onward,
                    seen: entry.seen,
                    seal: $seal(&Self::key(tuple)),
                    ..Zeroable::zeroed()
                }
            }

            fn entry(key: &$key, value: &$value) -> (Entry, bool) {
                let entry = Entry {
                    last_seen: value.last_seen,
                    source: value.source.into(),
                    destination: value.destination.into(),
                    source_port: value.source_port,
                    destination_port: value.destination_port,
                    backend: value.backend,
                    generation: value.generation,
                    service_port: value.service_port,
                    hook: value.hook,
                    peer_hook: value.peer_hook,
                    direction: value.direction,
                    onward: value.onward,
                    peer_onward: value.peer_onward,
                    seen: value.seen,
                };
                (entry, value.seal == $seal(key) && value.reserved == [0; 2] && key.reserved == [0; 3])
            }
        }
    };
}

flows!(V4, FlowKey4, Flow4, flow_seal4, octets4);
flows!(V6, FlowKey6, Flow6, flow_seal6, octets6);

/// An entry of a flow map; panics when its seal is not its key's.
pub(crate) fn flow<F: Flows, const K: usize, const V: usize>(key: [u8; K], value: [u8; V]) -> (Tuple, Entry) {
    let key = checked::pod_read_unaligned(&key);
    let (entry, sound) = F::entry(&key, &checked::pod_read_unaligned(&value));
    let tuple = F::tuple(&key);
    assert!(sound, "the seal or a reserved field of {tuple:?} is wrong: {value:02x?}");
    (tuple, entry)
}

pub(crate) fn fragment_key(datagram: &Datagram) -> FragmentKey {
    let Datagram { source, destination, id, protocol } = *datagram;
    if source.is_ipv4() {
        let (source, destination) = (octets4(source), octets4(destination));
        FragmentKey::V4(FragmentKey4 { source, destination, id, protocol, reserved: [0; 3] })
    } else {
        let (source, destination) = (octets6(source), octets6(destination));
        FragmentKey::V6(FragmentKey6 { source, destination, id, protocol, reserved: [0; 3] })
    }
}

pub(crate) fn datagram(key: FragmentKey) -> Datagram {
    let (source, destination, id, protocol): (IpAddr, IpAddr, _, _) = match key {
        FragmentKey::V4(key) => (key.source.into(), key.destination.into(), key.id, key.protocol),
        FragmentKey::V6(key) => (key.source.into(), key.destination.into(), key.id, key.protocol),
    };
    Datagram { source, destination, id, protocol }
}

pub(crate) fn fragment_ports((source, destination): (u16, u16)) -> FragmentPorts {
    FragmentPorts { source, destination }
}

pub(crate) fn ports_of_fragment(value: [u8; 4]) -> (u16, u16) {
    let FragmentPorts { source, destination } = checked::cast(value);
    (source, destination)
}

pub(crate) fn affinity_key(client: &Client) -> AffinityKey {
    let (service_port, client_kind, reserved) = (client.service_port, ClientKind::Address, [0; 3]);
    match client.address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let client = [a, b, c, d, 0, 0, 0, 0];
            AffinityKey::V4(AffinityKey4 { client, service_port, client_kind, reserved })
        }
        IpAddr::V6(address) => {
            let client = address.octets();
            AffinityKey::V6(AffinityKey6 { client, service_port, client_kind, reserved })
        }
    }
}

/// Panics when the key is not that of a client known by its address.
pub(crate) fn client(key: AffinityKey) -> Client {
    let (address, service_port, kind, reserved): (IpAddr, _, _, _) = match key {
        AffinityKey::V4(key) => {
            let [a, b, c, d, rest @ ..] = key.client;
            assert_eq!(rest, [0; 4]);
            ([a, b, c, d].into(), key.service_port, key.client_kind, key.reserved)
        }
        AffinityKey::V6(key) => (key.client.into(), key.service_port, key.client_kind, key.reserved),
    };
    assert_eq!((kind, reserved), (ClientKind::Address, [0; 3]));
    Client { address, service_port }
}

pub(crate) fn frontend_key(address: IpAddr, port: u16, protocol: Protocol) -> FrontendKey {
    match address {
        IpAddr::V4(address) => FrontendKey::V4(FrontendKey4::new(address.octets(), port, protocol)),
        IpAddr::V6(address) => FrontendKey::V6(FrontendKey6::new(address.octets(), port, protocol)),
    }
}

fn octets4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => panic!("{address} is not an IPv4 address"),
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => panic!("{address} is not an IPv6 address"),
    }
}
