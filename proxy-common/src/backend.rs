use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};

use crate::Protocol;

/// The lists that kube-proxy's endpoint selection makes for a service port (cluster-wide after topology,
/// and on this node); each is one bit of [`Backend4::lists`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum EndpointList {
    /// In no list: known only so that flows that already use it go on (it is terminating but serving).
    None = 0,
    /// In the cluster list.
    Cluster = 1,
    /// In the local list.
    Local = 2,
}

/// Value of `BACKENDS4`: one endpoint of one service port. The index is the backend id.
///
/// The agent writes a record only while no frontend refers to it, but for `lists`, `generation` and
/// `service_port` (whose id changes when session affinity is turned on or off), each in one aligned store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Backend4 {
    /// Network order.
    pub address: [u8; 4],
    /// Host order.
    pub port: u16,
    /// Or-ed [`EndpointList`] bits; 0 for an endpoint that takes no new flows.
    pub lists: u8,
    /// Protocol of the service port.
    pub protocol: Protocol,
    /// Changes whenever the id is given out or taken back; see [`is_live`].
    pub generation: u32,
    /// Service port id that the endpoint belongs to.
    pub service_port: u32,
}

/// Value of `BACKENDS6`: as [`Backend4`], for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Backend6 {
    /// Network order.
    pub address: [u8; 16],
    /// Host order.
    pub port: u16,
    /// Or-ed [`EndpointList`] bits; 0 for an endpoint that takes no new flows.
    pub lists: u8,
    /// Protocol of the service port.
    pub protocol: Protocol,
    /// Changes whenever the id is given out or taken back; see [`is_live`].
    pub generation: u32,
    /// Service port id that the endpoint belongs to.
    pub service_port: u32,
    /// Zero; makes the record as long as its stride in the memory-mapped array.
    pub reserved: u32,
}

/// The backend of a flow that belongs to no Service. Ids start from 1.
pub const NO_BACKEND: u32 = 0;

/// Whether a generation belongs to a backend in use: odd while the id is given out, even while it is free.
///
/// A reader that keeps (id, generation) can so tell later whether it still means the same endpoint: both
/// giving out and taking back add one.
#[inline(always)]
#[must_use]
pub const fn is_live(generation: u32) -> bool {
    generation % 2 == 1
}

/// Value of `BACKEND_LOAD4` and `BACKEND_LOAD6`, by backend id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BackendLoad {
    /// Open sockets of this node's processes that were translated to the backend; stays 0 unless the agent
    /// runs with `--count-connections`.
    pub active: u64,
}

const _: () = assert!(size_of::<Backend4>() == 16);
const _: () = assert!(size_of::<Backend6>() == 32);
const _: () = assert!(core::mem::offset_of!(Backend4, lists) == 6);
const _: () = assert!(core::mem::offset_of!(Backend4, generation) == 8);
const _: () = assert!(core::mem::offset_of!(Backend6, lists) == 18);
const _: () = assert!(core::mem::offset_of!(Backend6, generation) == 20);
