use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

use crate::Protocol;

/// Where a packet program stands: on what kind of link, and which way packets go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum Hook {
    /// Nowhere.
    None = 0,
    /// Packets that come in from other nodes and from outside the cluster.
    UplinkIngress = 1,
    /// Packets that leave the node.
    UplinkEgress = 2,
    /// Packets that pods of this node have sent.
    WorkloadIngress = 3,
    /// Packets to pods of this node.
    WorkloadEgress = 4,
}

/// Which way the packets of a flow entry go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum Direction {
    /// From the client to the frontend.
    Forward = 0,
    /// From the endpoint back.
    Reply = 1,
}

/// How a rewritten packet goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum Onward {
    /// Through the kernel's own stack, as if it had come like that.
    Stack = 0,
    /// Straight to the link that the routing table names: the stack would refuse a packet that comes in
    /// with one of the node's own addresses as its source.
    Link = 1,
}

/// Bits of [`Flow4::seen`]: what the packets of one direction have shown.
pub mod seen {
    /// A FIN (TCP), a SHUTDOWN, SHUTDOWN ACK or SHUTDOWN COMPLETE (SCTP).
    pub const FIN: u8 = 1 << 0;
    /// A RST (TCP) or ABORT (SCTP), and nothing since.
    pub const RST: u8 = 1 << 1;
    /// Any packet; set in a reply entry once the endpoint has answered.
    pub const PACKET: u8 = 1 << 2;
    /// In a reply entry: before any answer the endpoint sent a packet of another connection. The client has one
    /// to the endpoint's own address from the same port.
    pub const ANOTHERS: u8 = 1 << 3;
    /// In a reply entry: it was made again, after the kernel had evicted it. There may have been an answer.
    pub const MADE_AGAIN: u8 = 1 << 4;
}

/// Key of `FLOWS4` and `NEW_FLOWS4`: a packet as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FlowKey4 {
    /// Network order.
    pub source: [u8; 4],
    /// Network order.
    pub destination: [u8; 4],
    /// Host order.
    pub source_port: u16,
    /// Host order.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Key of `FLOWS6` and `NEW_FLOWS6`: a packet as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FlowKey6 {
    /// Network order.
    pub source: [u8; 16],
    /// Network order.
    pub destination: [u8; 16],
    /// Host order.
    pub source_port: u16,
    /// Host order.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `FLOWS4` and `NEW_FLOWS4`: what the packets of one direction of a flow become.
///
/// A flow is two entries. The key of the other one is what the packets become, turned round; what the other
/// one's packets become is this key, turned round. So neither names the other, and either can be made again
/// from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Flow4 {
    /// Nanoseconds of the kernel's monotonic clock, to about a second, at the last packet of this direction.
    pub last_seen: u64,
    /// New source, in network order.
    pub source: [u8; 4],
    /// New destination, in network order.
    pub destination: [u8; 4],
    /// New source port, in host order.
    pub source_port: u16,
    /// New destination port, in host order.
    pub destination_port: u16,
    /// Backend id; [`NO_BACKEND`](crate::NO_BACKEND) for a connection to the endpoint's own address, which has a flow
    /// only to get another source port than that of a flow with a Service.
    pub backend: u32,
    /// Generation of the backend when it was chosen.
    pub generation: u32,
    /// Service port id.
    pub service_port: u32,
    /// Where packets of this direction are rewritten, and nowhere else: a packet that was rewritten at one
    /// hook passes all others as it is.
    pub hook: Hook,
    /// The other direction's [`Self::hook`].
    pub peer_hook: Hook,
    /// Which direction this is.
    pub direction: Direction,
    /// How rewritten packets go on.
    pub onward: Onward,
    /// The other direction's [`Self::onward`].
    pub peer_onward: Onward,
    /// Or-ed bits of [`seen`].
    pub seen: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// [`flow_seal4`] of the key. The kernel may hand the memory of a deleted entry to another while a program
    /// still reads it; a program that finds another seal has found nothing.
    pub seal: u64,
}

/// Value of `FLOWS6` and `NEW_FLOWS6`: as [`Flow4`], for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Flow6 {
    /// Nanoseconds of the kernel's monotonic clock, to about a second, at the last packet of this direction.
    pub last_seen: u64,
    /// New source, in network order.
    pub source: [u8; 16],
    /// New destination, in network order.
    pub destination: [u8; 16],
    /// New source port, in host order.
    pub source_port: u16,
    /// New destination port, in host order.
    pub destination_port: u16,
    /// Backend id.
    pub backend: u32,
    /// Generation of the backend when it was chosen.
    pub generation: u32,
    /// Service port id.
    pub service_port: u32,
    /// As in [`Flow4`].
    pub hook: Hook,
    /// As in [`Flow4`].
    pub peer_hook: Hook,
    /// Which direction this is.
    pub direction: Direction,
    /// How rewritten packets go on.
    pub onward: Onward,
    /// The other direction's [`Self::onward`].
    pub peer_onward: Onward,
    /// Or-ed bits of [`seen`].
    pub seen: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// [`flow_seal6`] of the key; as in [`Flow4`].
    pub seal: u64,
}

/// Key of `FRAGMENTS4`: what all fragments of a datagram share (RFC 791 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FragmentKey4 {
    /// Network order.
    pub source: [u8; 4],
    /// Network order.
    pub destination: [u8; 4],
    /// Identification, in host order.
    pub id: u32,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Key of `FRAGMENTS6`: what all fragments of a datagram share (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FragmentKey6 {
    /// Network order.
    pub source: [u8; 16],
    /// Network order.
    pub destination: [u8; 16],
    /// Identification, in host order.
    pub id: u32,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `FRAGMENTS4` and `FRAGMENTS6`: the ports that only the first fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FragmentPorts {
    /// Host order.
    pub source: u16,
    /// Host order.
    pub destination: u16,
}

/// The seal of the flow entry of a key.
#[inline(always)]
#[must_use]
pub const fn flow_seal4(key: &FlowKey4) -> u64 {
    let (source, destination) = (u32::from_ne_bytes(key.source), u32::from_ne_bytes(key.destination));
    flow_seal_of4(source, destination, key.source_port, key.destination_port, key.protocol)
}

/// The seal of the flow entry of a key.
#[inline(always)]
#[must_use]
pub const fn flow_seal6(key: &FlowKey6) -> u64 {
    let (source, destination) = (words(key.source), words(key.destination));
    flow_seal_of6(source, destination, key.source_port, key.destination_port, key.protocol)
}

/// [`flow_seal4`] of a key whose addresses are words in network order.
#[inline(always)]
#[must_use]
pub const fn flow_seal_of4(
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    protocol: Protocol,
) -> u64 {
    mix(join(source, destination), ports(source_port, destination_port, protocol))
}

/// [`flow_seal6`] of a key whose addresses are words in network order.
#[inline(always)]
#[must_use]
pub const fn flow_seal_of6(
    [a, b, c, d]: [u32; 4],
    [e, f, g, h]: [u32; 4],
    source_port: u16,
    destination_port: u16,
    protocol: Protocol,
) -> u64 {
    let addresses = mix(mix(mix(join(a, b), join(c, d)), join(e, f)), join(g, h));
    mix(addresses, ports(source_port, destination_port, protocol))
}

#[inline(always)]
const fn words(address: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

#[inline(always)]
const fn join(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[inline(always)]
const fn ports(source: u16, destination: u16, protocol: Protocol) -> u64 {
    (source as u64) << 24 | (destination as u64) << 8 | protocol as u64
}

#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    // Odd, with well spread bits: 2^64 divided by the golden ratio.
    (state ^ word.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const _: () = assert!(size_of::<FlowKey4>() == 4 + 4 + 2 + 2 + 1 + 3);
const _: () = assert!(size_of::<FlowKey6>() == 16 + 16 + 2 + 2 + 1 + 3);
const _: () = assert!(size_of::<Flow4>() == 48);
const _: () = assert!(size_of::<Flow6>() == 72);
const _: () = assert!(core::mem::offset_of!(Flow4, seal) == 40);
const _: () = assert!(core::mem::offset_of!(Flow6, seal) == 64);
const _: () = assert!(size_of::<FragmentKey4>() == 16);
const _: () = assert!(size_of::<FragmentKey6>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_key_changes_its_seal() {
        let key = FlowKey4 {
            source: [10, 0, 0, 1],
            destination: [10, 0, 0, 2],
            source_port: 1000,
            destination_port: 80,
            protocol: Protocol::Tcp,
            reserved: [0; 3],
        };
        let others = [
            FlowKey4 { source: key.destination, destination: key.source, ..key },
            FlowKey4 { source_port: 80, destination_port: 1000, ..key },
            FlowKey4 { protocol: Protocol::Udp, ..key },
            FlowKey4 { destination: [10, 0, 0, 3], ..key },
        ];
        assert!(others.iter().all(|other| flow_seal4(other) != flow_seal4(&key)));
        let key = FlowKey6 {
            source: [1; 16],
            destination: [2; 16],
            source_port: 1000,
            destination_port: 80,
            protocol: Protocol::Tcp,
            reserved: [0; 3],
        };
        let others = [
            FlowKey6 { source: key.destination, destination: key.source, ..key },
            FlowKey6 { source_port: 80, destination_port: 1000, ..key },
            FlowKey6 { protocol: Protocol::Sctp, ..key },
        ];
        assert!(others.iter().all(|other| flow_seal6(other) != flow_seal6(&key)));
    }
}
