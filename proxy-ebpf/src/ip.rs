//! What differs between IPv4 and IPv6: addresses, and the maps that are keyed by them.

use core::ptr::read_volatile;

use aya_ebpf::bindings::BPF_ANY;
use proxy_common::{
    Affinity, AffinityKey4, AffinityKey6, BackendLoad, ClientKind, Family, Frontend, FrontendKey4,
    FrontendKey6, Protocol, filter_position4, filter_position6, map_to_v6, seal4, seal6,
};

use crate::{
    choose::Client,
    maps::{
        AFFINITY4, AFFINITY6, BACKEND_LOAD4, BACKEND_LOAD6, BACKENDS4, BACKENDS6, FRONTENDS4, FRONTENDS6,
    },
};

/// A copy of what the programs need of a backend.
#[derive(Clone, Copy)]
pub(crate) struct Backend<A> {
    pub(crate) address: A,
    pub(crate) port: u16,
    pub(crate) lists: u8,
    pub(crate) generation: u32,
    pub(crate) service_port: u32,
}

/// One IP family.
pub(crate) trait Ip {
    /// An address in network order.
    type Address: Copy + 'static;
    const FAMILY: Family;

    /// Word and bit of the address in `ADDRESS_FILTER`.
    fn filter_position(address: Self::Address) -> (u32, u64);

    /// The words of the frontend's entry, its seal last, and the seal that they should have.
    fn frontend(address: Self::Address, port: u16, protocol: Protocol) -> Option<([u64; 5], u64)>;

    fn backend(id: u32) -> Option<Backend<Self::Address>>;

    fn load(id: u32) -> Option<*mut BackendLoad>;

    fn affinity(client: Client<Self::Address>, service_port: u32) -> Option<*mut Affinity>;

    fn set_affinity(client: Client<Self::Address>, service_port: u32, affinity: &Affinity);

    fn to_v6(address: Self::Address) -> [u8; 16];

    /// Whether it is an address of the machine itself (127.0.0.0/8, ::1).
    fn is_loopback(address: Self::Address) -> bool;
}

pub(crate) struct V4;
pub(crate) struct V6;

impl Ip for V4 {
    type Address = [u8; 4];
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn filter_position(address: [u8; 4]) -> (u32, u64) {
        filter_position4(address)
    }

    #[inline(always)]
    fn frontend(address: [u8; 4], port: u16, protocol: Protocol) -> Option<([u64; 5], u64)> {
        let key = FrontendKey4::new(address, port, protocol);
        let words = words(FRONTENDS4.get_ptr(key)?);
        let [a, b, c, d, _seal] = words;
        Some((words, seal4(&key, [a, b, c, d])))
    }

    #[inline(always)]
    fn backend(id: u32) -> Option<Backend<[u8; 4]>> {
        let record = BACKENDS4.get(id)?;
        Some(Backend {
            address: record.address,
            port: record.port,
            lists: record.lists,
            // SAFETY: a reference is readable; volatile because the agent may change the word meanwhile.
            generation: unsafe { read_volatile(&raw const record.generation) },
            service_port: record.service_port,
        })
    }

    #[inline(always)]
    fn load(id: u32) -> Option<*mut BackendLoad> {
        BACKEND_LOAD4.get_ptr_mut(id)
    }

    #[inline(always)]
    fn affinity(client: Client<[u8; 4]>, service_port: u32) -> Option<*mut Affinity> {
        AFFINITY4.get_ptr_mut(affinity_key4(client, service_port))
    }

    #[inline(always)]
    fn set_affinity(client: Client<[u8; 4]>, service_port: u32, affinity: &Affinity) {
        // A full LRU map makes room by itself; without memory the client is balanced afresh next time.
        let _stored = AFFINITY4.insert(affinity_key4(client, service_port), affinity, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn is_loopback(address: [u8; 4]) -> bool {
        address[0] == 127
    }

    #[inline(always)]
    fn to_v6(address: [u8; 4]) -> [u8; 16] {
        map_to_v6(address)
    }
}

impl Ip for V6 {
    type Address = [u8; 16];
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn filter_position(address: [u8; 16]) -> (u32, u64) {
        filter_position6(address)
    }

    #[inline(always)]
    fn frontend(address: [u8; 16], port: u16, protocol: Protocol) -> Option<([u64; 5], u64)> {
        let key = FrontendKey6::new(address, port, protocol);
        let words = words(FRONTENDS6.get_ptr(key)?);
        let [a, b, c, d, _seal] = words;
        Some((words, seal6(&key, [a, b, c, d])))
    }

    #[inline(always)]
    fn backend(id: u32) -> Option<Backend<[u8; 16]>> {
        let record = BACKENDS6.get(id)?;
        Some(Backend {
            address: record.address,
            port: record.port,
            lists: record.lists,
            // SAFETY: a reference is readable; volatile because the agent may change the word meanwhile.
            generation: unsafe { read_volatile(&raw const record.generation) },
            service_port: record.service_port,
        })
    }

    #[inline(always)]
    fn load(id: u32) -> Option<*mut BackendLoad> {
        BACKEND_LOAD6.get_ptr_mut(id)
    }

    #[inline(always)]
    fn affinity(client: Client<[u8; 16]>, service_port: u32) -> Option<*mut Affinity> {
        AFFINITY6.get_ptr_mut(affinity_key6(client, service_port))
    }

    #[inline(always)]
    fn set_affinity(client: Client<[u8; 16]>, service_port: u32, affinity: &Affinity) {
        // A full LRU map makes room by itself; without memory the client is balanced afresh next time.
        let _stored = AFFINITY6.insert(affinity_key6(client, service_port), affinity, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn is_loopback(address: [u8; 16]) -> bool {
        u128::from_be_bytes(address) == 1
    }

    #[inline(always)]
    fn to_v6(address: [u8; 16]) -> [u8; 16] {
        address
    }
}

/// Copies a frontend out of its entry, whose memory the kernel may hand to another entry meanwhile.
#[inline(always)]
fn words(entry: *const Frontend) -> [u64; 5] {
    const { assert!(size_of::<Frontend>() == 40 && align_of::<Frontend>() == 8) };
    let words: *const u64 = entry.cast();
    // SAFETY: the entry is a live map value of five words until the program returns.
    unsafe {
        [
            read_volatile(words),
            read_volatile(words.add(1)),
            read_volatile(words.add(2)),
            read_volatile(words.add(3)),
            read_volatile(words.add(4)),
        ]
    }
}

#[inline(always)]
fn affinity_key4(client: Client<[u8; 4]>, service_port: u32) -> AffinityKey4 {
    let (client, client_kind) = match client {
        Client::Namespace(cookie) => (cookie.to_ne_bytes(), ClientKind::NetworkNamespace),
        Client::Address([a, b, c, d]) => ([a, b, c, d, 0, 0, 0, 0], ClientKind::Address),
    };
    AffinityKey4 { client, service_port, client_kind, reserved: [0; 3] }
}

#[inline(always)]
fn affinity_key6(client: Client<[u8; 16]>, service_port: u32) -> AffinityKey6 {
    let (client, client_kind) = match client {
        Client::Namespace(cookie) => {
            let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
            ([a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0], ClientKind::NetworkNamespace)
        }
        Client::Address(address) => (address, ClientKind::Address),
    };
    AffinityKey6 { client, service_port, client_kind, reserved: [0; 3] }
}
