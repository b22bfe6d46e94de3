//! What the Ferroute agent and its eBPF programs agree on: the keys and values of the maps, and how an
//! endpoint is chosen.
//!
//! Everything here is plain old data with a fixed layout, asserted at compile time, and free of padding:
//! the kernel hashes keys byte by byte. Addresses are byte arrays in network order, ports are in host
//! order, so that `bpftool map dump` shows what a person expects.
#![no_std]
#![forbid(unsafe_code)]

mod affinity;
mod backend;
pub mod checksum;
mod choose;
mod counters;
pub mod crc32c;
mod filter;
mod flow;
mod frontend;
mod link;
mod name;
mod net;
mod socket;
mod source_range;

pub use affinity::{Affinity, AffinityKey4, AffinityKey6, ClientKind};
pub use backend::{Backend4, Backend6, BackendLoad, EndpointList, NO_BACKEND, is_live};
pub use choose::pick;
pub use counters::Counters;
pub use filter::{
    FILTER_WORDS, FLOW_FILTER_BYTES, Role, filter_position4, filter_position6, flow_filter_position4,
    flow_filter_position6,
};
pub use flow::{
    Direction, Flow4, Flow6, FlowKey4, FlowKey6, FragmentKey4, FragmentKey6, FragmentPorts, Hook, Onward,
    flow_seal_of4, flow_seal_of6, flow_seal4, flow_seal6, seen,
};
pub use frontend::{
    ANY_PORT, Algorithm, FRONTEND_IS_LOCAL, FRONTEND_SOURCE_RANGES, Frontend, FrontendKey4, FrontendKey6,
    FrontendKind, NO_SERVICE_PORT, SlotRange, WhenEmpty, seal4, seal6,
};
pub use link::{Link, LinkRole};
pub use name::{SERVICE_NAME_LEN, ServicePort};
pub use net::{Family, Protocol, map_to_v6, unmap_v4};
pub use socket::{PEERS, Peers, SocketFields, StaleSocket, Translation};
pub use source_range::{SOURCE_RANGE_ID_BITS, SourceRange4, SourceRange6, SourceRangeKey4, SourceRangeKey6};

/// Version of the map layout as a whole. Raised when the meaning of a field changes without its size
/// changing; sizes and capacities are compared on their own when a pinned map is re-opened.
pub const LAYOUT_VERSION: u32 = 2;
