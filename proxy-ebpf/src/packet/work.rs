//! Where a packet's headers, its flow and what it becomes are kept while it is worked on: the stack of a program is
//! 512 bytes, and the addresses of IPv6 alone would take most of it.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

use super::{
    flow::Change,
    headers::Headers,
    notice::Message,
    route::Way,
    tables::{Flow, Key, PacketIp},
};
use crate::ip::{V4, V6};

/// One packet's work. It belongs to the CPU: a program is not interrupted there by another of its kind.
#[repr(C)]
pub(crate) struct Work<A> {
    pub(super) headers: Headers<A>,
    /// Those of the packet that an ICMP error quotes.
    pub(super) quoted: Headers<A>,
    /// The key of the packet's flow.
    pub(super) key: Key<A>,
    /// The key of the flow's other direction.
    pub(super) other_key: Key<A>,
    /// What the packet becomes.
    pub(super) change: Change<A>,
    /// The source address that it goes on with: an ICMP error's need not be that of its flow.
    pub(super) source: A,
    /// What its sender is told, if that is owed.
    pub(super) message: Message,
    /// How the packet goes on, and its time to live then.
    pub(super) way: Way,
    pub(super) ttl: u8,
    /// Whether the flow may have the client's own source port.
    pub(super) may_keep_port: bool,
    /// Whether the client asked for one of the node's own addresses.
    pub(super) to_own_address: bool,
    /// A flow entry that is read or made, and the other one of its flow.
    pub(super) flow: Flow<A>,
    pub(super) other: Flow<A>,
}

#[btf_map]
static WORK4: PerCpuArray<Work<[u32; 1]>, 1> = PerCpuArray::new();
#[btf_map]
static WORK6: PerCpuArray<Work<[u32; 4]>, 1> = PerCpuArray::new();

/// An IP family with a place for its work.
pub(super) trait Desk: PacketIp {
    /// The place of this CPU; what it holds is of earlier packets.
    fn work() -> Option<&'static mut Work<Self::Words>>;
}

impl Desk for V4 {
    #[inline(always)]
    fn work() -> Option<&'static mut Work<[u32; 1]>> {
        // SAFETY: the value belongs to this CPU, and each program asks for it once.
        WORK4.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }
}

impl Desk for V6 {
    #[inline(always)]
    fn work() -> Option<&'static mut Work<[u32; 4]>> {
        // SAFETY: as for IPv4.
        WORK6.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }
}
