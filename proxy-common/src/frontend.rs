use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

use crate::{EndpointList, Protocol};

/// Port of the entry that answers for every port a cluster IP does not serve.
pub const ANY_PORT: u16 = 0;

/// Bit of [`Frontend::flags`]: only clients inside the service port's source ranges are served. They are known
/// by their packets: the socket path leaves such a frontend to the packet path.
pub const FRONTEND_SOURCE_RANGES: u8 = 1 << 0;

/// Bit of [`Frontend::flags`]: the address is one of the node's own.
pub const FRONTEND_IS_LOCAL: u8 = 1 << 1;

/// Service port id of the entry that answers for unknown ports; no service port has it.
pub const NO_SERVICE_PORT: u32 = 0;

/// Key of `FRONTENDS4`: an IPv4 address, port and protocol that a Service answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FrontendKey4 {
    /// Network order.
    pub address: [u8; 4],
    /// Host order; [`ANY_PORT`] in the entry for unknown ports.
    pub port: u16,
    /// [`Protocol::Any`] in the entry for unknown ports.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: u8,
}

/// Key of `FRONTENDS6`: an IPv6 address, port and protocol that a Service answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct FrontendKey6 {
    /// Network order.
    pub address: [u8; 16],
    /// Host order; [`ANY_PORT`] in the entry for unknown ports.
    pub port: u16,
    /// [`Protocol::Any`] in the entry for unknown ports.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: u8,
}

impl FrontendKey4 {
    /// The key of one address, port (host order) and protocol.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 4], port: u16, protocol: Protocol) -> Self {
        Self { address, port, protocol, reserved: 0 }
    }

    /// The key of the entry that answers for every port the address does not serve.
    #[inline(always)]
    #[must_use]
    pub const fn any_port(address: [u8; 4]) -> Self {
        Self::new(address, ANY_PORT, Protocol::Any)
    }
}

impl FrontendKey6 {
    /// The key of one address, port (host order) and protocol.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 16], port: u16, protocol: Protocol) -> Self {
        Self { address, port, protocol, reserved: 0 }
    }

    /// The key of the entry that answers for every port the address does not serve.
    #[inline(always)]
    #[must_use]
    pub const fn any_port(address: [u8; 16]) -> Self {
        Self::new(address, ANY_PORT, Protocol::Any)
    }
}

/// What kind of Service address a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp = 0,
    /// `spec.externalIPs`.
    ExternalIp = 1,
    /// `status.loadBalancer.ingress[].ip`.
    LoadBalancer = 2,
    /// A node address with `spec.ports[].nodePort`.
    NodePort = 3,
}

/// How an endpoint is chosen from a range of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum Algorithm {
    /// Every slot with the same probability.
    Random = 0,
}

/// What a client meets when the range it would be sent to is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum WhenEmpty {
    /// The Service has no endpoint anywhere: refused at once.
    Reject = 0,
    /// A traffic policy leaves no endpoint here: fails as a lost packet would.
    Drop = 1,
}

/// A run of entries in `SLOTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct SlotRange {
    /// First slot.
    pub base: u32,
    /// Number of slots; 0 is an empty range.
    pub len: u32,
}

/// Value of `FRONTENDS4` and `FRONTENDS6`: where the traffic of one frontend goes.
///
/// Replacing this value is the one atomic step by which a frontend moves from an old set of endpoints
/// to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Frontend {
    /// Endpoints for clients inside the cluster.
    pub internal: SlotRange,
    /// Endpoints for traffic from outside; empty for a cluster IP.
    pub external: SlotRange,
    /// Service port id: the key of `SERVICES`, shared by all frontends of the service port.
    pub service_port: u32,
    /// Session affinity timeout in seconds since the last new connection; 0 is no affinity.
    pub affinity_seconds: u32,
    /// How a slot is chosen.
    pub algorithm: Algorithm,
    /// What kind of Service address this is.
    pub kind: FrontendKind,
    /// The list that `internal` was made from: a backend must be in it for an affinity entry to count.
    pub internal_list: EndpointList,
    /// The list that `external` was made from; [`EndpointList::None`] for a cluster IP.
    pub external_list: EndpointList,
    /// What clients inside the cluster meet when `internal` is empty.
    pub when_internal_empty: WhenEmpty,
    /// What traffic from outside meets when `external` is empty.
    pub when_external_empty: WhenEmpty,
    /// Or-ed [`FRONTEND_SOURCE_RANGES`] and [`FRONTEND_IS_LOCAL`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// [`seal4`] or [`seal6`] over the key and the fields above.
    ///
    /// The kernel may hand the memory of a replaced hash entry to another entry while a program still
    /// reads it. A program that finds the seal broken looks the key up again.
    pub seal: u64,
}

/// The seal of an IPv4 frontend; `value` are the words of the [`Frontend`] before its seal.
#[inline(always)]
#[must_use]
pub const fn seal4(key: &FrontendKey4, value: [u64; 4]) -> u64 {
    let [a, b, c, d] = key.address;
    seal(u32::from_ne_bytes([a, b, c, d]) as u64, key.port, key.protocol, value)
}

/// The seal of an IPv6 frontend; `value` are the words of the [`Frontend`] before its seal.
#[inline(always)]
#[must_use]
pub const fn seal6(key: &FrontendKey6, value: [u64; 4]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.address;
    let high = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    let low = u64::from_ne_bytes([i, j, k, l, m, n, o, p]);
    seal(mix(high, low), key.port, key.protocol, value)
}

#[inline(always)]
const fn seal(address: u64, port: u16, protocol: Protocol, value: [u64; 4]) -> u64 {
    let [internal, external, ids, kinds] = value;
    let key = mix(address, (port as u64) << 8 | protocol as u64);
    mix(mix(mix(mix(key, internal), external), ids), kinds)
}

#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    // Odd, with well spread bits: 2^64 divided by the golden ratio.
    (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Frontend {
    /// This frontend with the seal for `key`.
    #[must_use]
    pub fn sealed4(mut self, key: &FrontendKey4) -> Self {
        self.seal = seal4(key, self.sealed_words());
        self
    }

    /// This frontend with the seal for `key`.
    #[must_use]
    pub fn sealed6(mut self, key: &FrontendKey6) -> Self {
        self.seal = seal6(key, self.sealed_words());
        self
    }

    fn sealed_words(&self) -> [u64; 4] {
        let [internal, external, ids, kinds, _seal] = bytemuck::cast::<Self, [u64; 5]>(*self);
        [internal, external, ids, kinds]
    }
}

const _: () = assert!(size_of::<FrontendKey4>() == 4 + 2 + 1 + 1);
const _: () = assert!(size_of::<FrontendKey6>() == 16 + 2 + 1 + 1);
const _: () = assert!(size_of::<Frontend>() == 40);
const _: () = assert!(core::mem::offset_of!(FrontendKey4, port) == 4);
const _: () = assert!(core::mem::offset_of!(FrontendKey6, port) == 16);
const _: () = assert!(core::mem::offset_of!(Frontend, service_port) == 16);
const _: () = assert!(core::mem::offset_of!(Frontend, algorithm) == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_enum_value_is_refused() {
        let mut bytes = [0_u8; size_of::<Frontend>()];
        bytes[24] = 200;
        let words: [u64; 5] = bytemuck::cast(bytes);
        assert!(bytemuck::checked::try_cast::<_, Frontend>(words).is_err());
    }

    #[test]
    fn a_seal_holds_for_one_key_and_one_value() {
        let value = Frontend { service_port: 7, ..Zeroable::zeroed() };
        let key = FrontendKey4::new([10, 96, 0, 1], 443, Protocol::Tcp);
        let sealed = value.sealed4(&key);
        assert_eq!(sealed.seal, Frontend { seal: 0, ..sealed }.sealed4(&key).seal);
        let others = [
            value.sealed4(&FrontendKey4::new([10, 96, 0, 2], 443, Protocol::Tcp)),
            value.sealed4(&FrontendKey4::new([10, 96, 0, 1], 444, Protocol::Tcp)),
            value.sealed4(&FrontendKey4::new([10, 96, 0, 1], 443, Protocol::Udp)),
            Frontend { service_port: 8, ..value }.sealed4(&key),
            Frontend { internal: SlotRange { base: 1, len: 0 }, ..value }.sealed4(&key),
            Frontend { external: SlotRange { base: 1, len: 0 }, ..value }.sealed4(&key),
        ];
        assert!(others.iter().all(|other| other.seal != sealed.seal));
    }

    #[test]
    fn key_bytes_are_address_then_host_order_port() {
        let key = FrontendKey4::new([10, 96, 0, 1], 443, Protocol::Tcp);
        let [lo, hi] = 443_u16.to_ne_bytes();
        assert_eq!(bytemuck::bytes_of(&key), [10, 96, 0, 1, lo, hi, 6, 0]);
    }
}
