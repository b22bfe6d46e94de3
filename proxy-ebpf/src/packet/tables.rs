//! Flow entries, and what of them differs between IPv4 and IPv6.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use proxy_common::{
    Direction, Flow4, Flow6, FlowKey4, FlowKey6, FragmentKey4, FragmentKey6, FragmentPorts, Hook, Link,
    Onward, Protocol, Role, SOURCE_RANGE_ID_BITS, SourceRange4, SourceRange6, flow_filter_position4,
    flow_filter_position6, flow_seal_of4, flow_seal_of6,
};

use crate::{
    ip::{Ip, V4, V6},
    maps::{
        CLUSTER_CIDR4, CLUSTER_CIDR6, FLOWS4, FLOWS6, FRAGMENTS4, FRAGMENTS6, NEW_FLOWS4, NEW_FLOWS6,
        SOURCE_RANGES4, SOURCE_RANGES6,
    },
};

/// [`FlowKey4`] or [`FlowKey6`], by the type of its addresses.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Key<A> {
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) protocol: Protocol,
    reserved: [u8; 3],
}

/// [`Flow4`] or [`Flow6`], by the type of its addresses.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Flow<A> {
    pub(super) last_seen: u64,
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) backend: u32,
    pub(super) generation: u32,
    pub(super) service_port: u32,
    pub(super) hook: Hook,
    pub(super) peer_hook: Hook,
    pub(super) direction: Direction,
    pub(super) onward: Onward,
    pub(super) peer_onward: Onward,
    pub(super) seen: u8,
    pub(super) reserved: [u8; 2],
    pub(super) seal: u64,
}

const _: () = assert!(size_of::<Key<[u32; 1]>>() == size_of::<FlowKey4>());
const _: () = assert!(size_of::<Key<[u32; 4]>>() == size_of::<FlowKey6>());
const _: () = assert!(size_of::<Flow<[u32; 1]>>() == size_of::<Flow4>());
const _: () = assert!(size_of::<Flow<[u32; 4]>>() == size_of::<Flow6>());
const _: () = assert!(core::mem::offset_of!(Flow<[u32; 1]>, hook) == core::mem::offset_of!(Flow4, hook));
const _: () = assert!(core::mem::offset_of!(Flow<[u32; 4]>, hook) == core::mem::offset_of!(Flow6, hook));

impl<A: Copy> Key<A> {
    #[inline(always)]
    pub(super) fn new(
        source: A,
        destination: A,
        source_port: u16,
        destination_port: u16,
        protocol: Protocol,
    ) -> Self {
        Self { source, destination, source_port, destination_port, protocol, reserved: [0; 3] }
    }
}

impl<A: Copy> Flow<A> {
    /// The key of the flow's other entry.
    #[inline(always)]
    pub(super) fn other_key(&self, protocol: Protocol) -> Key<A> {
        Key::new(self.destination, self.source, self.destination_port, self.source_port, protocol)
    }

    /// The flow's other entry, as new; `key` is this one's, and `seal` belongs to [`Self::other_key`].
    #[inline(always)]
    pub(super) fn other(&self, key: &Key<A>, seal: u64) -> Self {
        Self {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            hook: self.peer_hook,
            peer_hook: self.hook,
            direction: match self.direction {
                Direction::Forward => Direction::Reply,
                Direction::Reply => Direction::Forward,
            },
            onward: self.peer_onward,
            peer_onward: self.onward,
            seen: 0,
            seal,
            ..*self
        }
    }
}

/// Which of the two kinds of flow map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// `FLOWS4` and `FLOWS6`.
    Confirmed,
    /// `NEW_FLOWS4` and `NEW_FLOWS6`.
    New,
}

/// An IP family, for packets.
pub(crate) trait PacketIp: Ip {
    /// An address as words in network order. The compiler would copy byte by byte what is not aligned.
    type Words: Copy + 'static;
    /// Bytes of the header without options.
    const HEADER: u32;
    /// Protocol number of its control messages.
    const ICMP: u8;
    /// Address family, as in `struct bpf_fib_lookup`.
    const AF: u8;

    fn find(table: Table, key: &Key<Self::Words>) -> Option<*mut Flow<Self::Words>>;
    /// Puts an entry where there is none; the error is the kernel's, as a negative number.
    fn put(table: Table, key: &Key<Self::Words>, flow: &Flow<Self::Words>) -> Result<(), i32>;
    fn remove(table: Table, key: &Key<Self::Words>);
    fn seal(key: &Key<Self::Words>) -> u64;
    fn flow_filter_position(address: Self::Words, role: Role) -> u32;
    /// Whether `source` is inside a source range of the service port.
    fn in_source_range(service_port: u32, source: Self::Words) -> bool;
    /// Whether it is an address of the cluster's pods.
    fn is_in_cluster(source: Self::Words) -> bool;
    fn fragment(headers: FragmentOf<Self::Words>) -> Option<FragmentPorts>;
    fn keep_fragment(headers: FragmentOf<Self::Words>, ports: &FragmentPorts);
    /// The source address of what is sent out of a link in a client's place.
    fn address_of(link: &Link) -> Self::Words;
    /// Sum of the address's 32-bit words.
    fn sum(address: Self::Words) -> u64;
    fn is_zero(address: Self::Words) -> bool;
    /// Whether a packet may come from it: no multicast, loopback or unspecified address.
    fn is_unicast(address: Self::Words) -> bool;
    fn equal(one: Self::Words, other: Self::Words) -> bool;
    /// As four words, the address in the first ones.
    fn four(address: Self::Words) -> [u32; 4];
    fn bytes(address: Self::Words) -> Self::Address;
    fn words(address: Self::Address) -> Self::Words;
    /// Number of words of an address.
    const WORDS: u64;
}

/// What all fragments of a datagram share.
#[derive(Clone, Copy)]
pub(crate) struct FragmentOf<A> {
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) id: u32,
    pub(super) protocol: Protocol,
}

macro_rules! packet_ip {
    (
        $family:ty, $address:ty, $key:ty, $flow:ty, $flows:ident, $new:ident, $seal:ident, $position:ident,
        $range:ident, $ranges:ident, $cluster:ident, $fragment:ident, $fragments:ident, $link_address:ident, $bytes:ty, $four:ident, $unicast:ident,
        header: $header:literal, icmp: $icmp:literal, af: $af:literal, words: $count:literal
    ) => {
        impl PacketIp for $family {
            const HEADER: u32 = $header;
            const ICMP: u8 = $icmp;
            const AF: u8 = $af;
            const WORDS: u64 = $count;
            type Words = $address;

            #[inline(always)]
            fn find(table: Table, key: &Key<$address>) -> Option<*mut Flow<$address>> {
                // SAFETY: the same layout, as asserted above.
                let key: &$key = unsafe { &*core::ptr::from_ref(key).cast() };
                let entry = match table {
                    Table::Confirmed => $flows.get_ptr_mut(key),
                    Table::New => $new.get_ptr_mut(key),
                };
                entry.map(|entry| entry.cast())
            }

            #[inline(always)]
            fn put(table: Table, key: &Key<$address>, flow: &Flow<$address>) -> Result<(), i32> {
                // SAFETY: the same layout, as asserted above.
                let key: &$key = unsafe { &*core::ptr::from_ref(key).cast() };
                // SAFETY: as for the key.
                let flow: &$flow = unsafe { &*core::ptr::from_ref(flow).cast() };
                match table {
                    Table::Confirmed => $flows.insert(key, flow, u64::from(BPF_NOEXIST)),
                    Table::New => $new.insert(key, flow, u64::from(BPF_NOEXIST)),
                }
            }

            #[inline(always)]
            fn remove(table: Table, key: &Key<$address>) {
                // SAFETY: the same layout, as asserted above.
                let key: &$key = unsafe { &*core::ptr::from_ref(key).cast() };
                // Somebody else may have removed it meanwhile.
                let _gone = match table {
                    Table::Confirmed => $flows.remove(key),
                    Table::New => $new.remove(key),
                };
            }

            #[inline(always)]
            fn seal(key: &Key<$address>) -> u64 {
                let Key { source_port, destination_port, protocol, .. } = *key;
                $seal(key.source, key.destination, source_port, destination_port, protocol)
            }

            #[inline(always)]
            fn flow_filter_position(address: $address, role: Role) -> u32 {
                $position(address, role)
            }

            #[inline(always)]
            fn in_source_range(service_port: u32, source: $address) -> bool {
                let range = $range { service_port: service_port.to_ne_bytes(), address: Self::bytes(source) };
                let bits = SOURCE_RANGE_ID_BITS + 8 * size_of::<$address>() as u32;
                $ranges.get(&aya_ebpf::btf_maps::lpm_trie::Key::new(bits, range)).is_some()
            }

            #[inline(always)]
            fn is_in_cluster(source: $address) -> bool {
                let [network, mask] = $cluster.load();
                let ([a, b, c, d], [e, f, g, h]) = (Self::four(source), Self::four(mask));
                let [i, j, k, l] = Self::four(network);
                (a & e ^ i) | (b & f ^ j) | (c & g ^ k) | (d & h ^ l) == 0
            }

            #[inline(always)]
            fn fragment(of: FragmentOf<$address>) -> Option<FragmentPorts> {
                let FragmentOf { id, protocol, .. } = of;
                let (source, destination) = (Self::bytes(of.source), Self::bytes(of.destination));
                // SAFETY: a copy of a live map value of plain numbers.
                unsafe {
                    $fragments.get($fragment { source, destination, id, protocol, reserved: [0; 3] }).copied()
                }
            }

            #[inline(always)]
            fn keep_fragment(of: FragmentOf<$address>, ports: &FragmentPorts) {
                let FragmentOf { id, protocol, .. } = of;
                let (source, destination) = (Self::bytes(of.source), Self::bytes(of.destination));
                let key = $fragment { source, destination, id, protocol, reserved: [0; 3] };
                // Without memory the rest of the datagram is lost, as a datagram may be.
                let _kept = $fragments.insert(key, ports, u64::from(BPF_ANY));
            }

            #[inline(always)]
            fn address_of(link: &Link) -> $address {
                Self::words(link.$link_address)
            }

            #[inline(always)]
            fn sum(address: $address) -> u64 {
                let [a, b, c, d] = Self::four(address);
                u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
            }

            #[inline(always)]
            fn is_zero(address: $address) -> bool {
                let [a, b, c, d] = Self::four(address);
                a | b | c | d == 0
            }

            #[inline(always)]
            fn is_unicast(address: $address) -> bool {
                $unicast(address)
            }

            #[inline(always)]
            fn equal(one: $address, other: $address) -> bool {
                let ([a, b, c, d], [e, f, g, h]) = (Self::four(one), Self::four(other));
                (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
            }

            #[inline(always)]
            fn four(address: $address) -> [u32; 4] {
                $four(address)
            }

            #[inline(always)]
            fn bytes(address: $address) -> $bytes {
                // SAFETY: plain data of the same size.
                unsafe { core::mem::transmute(address) }
            }

            #[inline(always)]
            fn words(address: $bytes) -> $address {
                // SAFETY: plain data of the same size.
                unsafe { core::mem::transmute(address) }
            }
        }
    };
}

packet_ip!(
    V4, [u32; 1], FlowKey4, Flow4, FLOWS4, NEW_FLOWS4, seal_of_one, flow_filter_position4, SourceRange4, SOURCE_RANGES4,
    CLUSTER_CIDR4, FragmentKey4, FRAGMENTS4, address4, [u8; 4], one_in_four, is_unicast4,
    header: 20, icmp: 1, af: 2, words: 1
);
packet_ip!(
    V6, [u32; 4], FlowKey6, Flow6, FLOWS6, NEW_FLOWS6, flow_seal_of6, flow_filter_position6, SourceRange6, SOURCE_RANGES6,
    CLUSTER_CIDR6, FragmentKey6, FRAGMENTS6, address6, [u8; 16], all_four, is_unicast6,
    header: 40, icmp: 58, af: 10, words: 4
);

#[inline(always)]
fn one_in_four([word]: [u32; 1]) -> [u32; 4] {
    [word, 0, 0, 0]
}

#[inline(always)]
fn seal_of_one(
    [source]: [u32; 1],
    [destination]: [u32; 1],
    source_port: u16,
    destination_port: u16,
    protocol: Protocol,
) -> u64 {
    flow_seal_of4(source, destination, source_port, destination_port, protocol)
}

#[inline(always)]
fn all_four(words: [u32; 4]) -> [u32; 4] {
    words
}

#[inline(always)]
fn is_unicast4([word]: [u32; 1]) -> bool {
    !matches!(word.to_ne_bytes()[0], 0 | 127 | 224..)
}

#[inline(always)]
fn is_unicast6([a, b, c, d]: [u32; 4]) -> bool {
    a.to_ne_bytes()[0] != 0xff && !(a | b | c == 0 && (d == 0 || d == 1_u32.to_be()))
}
