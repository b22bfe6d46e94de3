use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

use crate::{EndpointList, Protocol};

/// Port of the entry that answers for every port a cluster IP does not serve.
pub const ANY_PORT: u16 = 0;

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
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<FrontendKey4>() == 4 + 2 + 1 + 1);
const _: () = assert!(size_of::<FrontendKey6>() == 16 + 2 + 1 + 1);
const _: () = assert!(size_of::<Frontend>() == 32);
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
        let words: [u32; 8] = bytemuck::cast(bytes);
        assert!(bytemuck::checked::try_cast::<_, Frontend>(words).is_err());
    }

    #[test]
    fn key_bytes_are_address_then_host_order_port() {
        let key = FrontendKey4::new([10, 96, 0, 1], 443, Protocol::Tcp);
        let [lo, hi] = 443_u16.to_ne_bytes();
        assert_eq!(bytemuck::bytes_of(&key), [10, 96, 0, 1, lo, hi, 6, 0]);
    }
}
