//! Where a packet would go, by the kernel's routing tables and neighbours.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use proxy_common::{Link, LinkRole};

use super::{context::Context, headers::Headers, tables::PacketIp};
use crate::maps::LINKS;

/// `struct bpf_fib_lookup` of linux/bpf.h.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Request {
    family: u8,
    protocol: u8,
    source_port: [u8; 2],
    destination_port: [u8; 2],
    /// Bytes of the packet; in the answer the MTU that they exceed.
    length: u16,
    /// The link it has come in on; in the answer the link it goes out of.
    link: u32,
    tos: u32,
    source: [u32; 4],
    destination: [u32; 4],
    vlan: u32,
    /// Source and destination, 6 bytes each.
    macs: [u16; 6],
}

const _: () = assert!(size_of::<Request>() == 64);

/// Too large for the stack beside all else. A program is not interrupted by another of its kind on the same CPU.
#[btf_map]
static ROUTE_REQUEST: PerCpuArray<Request, 1> = PerCpuArray::new();

/// What kind of way leads to an address.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Out of a link, to a neighbour whose address is known: [`macs`] has it.
    Neighbour,
    /// Out of a link, to a neighbour that has to be found first.
    Link,
    /// To this host itself.
    Here,
    /// Out of a link that takes no packets as large.
    TooBig,
    /// There is none.
    None,
}

/// The way to an address. Not an enum with fields: the verifier refuses the registers of those that are not there.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(super) kind: Kind,
    /// The link, if it is out of one.
    pub(super) link: u32,
    /// Bytes that the link takes, if the packet is too big for it.
    pub(super) mtu: u16,
}

impl Way {
    /// Through the kernel's own stack.
    pub(super) const STACK: Self = Self { kind: Kind::Here, link: 0, mtu: 0 };
}

/// Asks for the way from `source` to `destination`. `length` is that of the packet, or 0 when it does not matter.
#[inline(always)]
pub(super) fn find<I: PacketIp, C: Context>(
    ctx: C,
    source: &I::Words,
    destination: &I::Words,
    length: u32,
    protocol: u8,
) -> Way {
    const SUCCESS: i64 = 0;
    const NOT_FORWARDED: i64 = 4;
    const NO_NEIGHBOUR: i64 = 7;
    const FRAGMENTATION_NEEDED: i64 = 8;

    let result = ask::<I, C>(ctx, source, destination, length, protocol);
    let Some(Request { link, length: mtu, .. }) = ROUTE_REQUEST.get(0) else {
        return Way { kind: Kind::None, link: 0, mtu: 0 };
    };
    let kind = match result {
        SUCCESS => Kind::Neighbour,
        NO_NEIGHBOUR => Kind::Link,
        NOT_FORWARDED => Kind::Here,
        // Without a length the kernel compares the packet with the link, which it then names.
        FRAGMENTATION_NEEDED if length == 0 => Kind::Link,
        FRAGMENTATION_NEEDED => Kind::TooBig,
        _ => Kind::None,
    };
    // Kernels before 5.12 do not say how large it may be; what IPv6 asks of every link gets through.
    Way { kind, link: *link, mtu: if u32::from(*mtu) < length { *mtu } else { 1280 } }
}

/// The kernel's answer, a negative number or `BPF_FIB_LKUP_RET_*`; all else of it is in the request.
#[inline(never)]
fn ask<I: PacketIp, C: Context>(
    ctx: C,
    source: &I::Words,
    destination: &I::Words,
    length: u32,
    protocol: u8,
) -> i64 {
    let Some(request) = ROUTE_REQUEST.get_ptr_mut(0) else { return -1 };
    // SAFETY: the value belongs to this CPU.
    let request = unsafe { &mut *request };
    request.family = I::AF;
    request.protocol = protocol;
    request.source_port = [0; 2];
    request.destination_port = [0; 2];
    request.length = if length > 0xffff { 0 } else { length as u16 };
    request.link = ctx.link();
    request.tos = 0;
    request.source = I::four(*source);
    request.destination = I::four(*destination);
    request.vlan = 0;
    ctx.look_up_route(request)
}

/// The link-layer addresses of the last [`Way::Neighbour`], as a frame has them: destination, source.
#[inline(always)]
pub(super) fn macs() -> [u16; 6] {
    let Some(request) = ROUTE_REQUEST.get(0) else { return [0; 6] };
    let [a, b, c, d, e, f] = request.macs;
    [d, e, f, a, b, c]
}

/// Bytes of the largest packet that comes of this one: what it stands for may be cut into segments.
#[inline(always)]
pub(super) fn largest<C: Context, A: Copy>(ctx: C, headers: &Headers<A>) -> u32 {
    match ctx.segment_payload() {
        0 => headers.length,
        payload => headers.transport - headers.ip + u32::from(headers.transport_length) + payload,
    }
}

/// What is known of a link: of one that the agent has not heard of yet, what holds for such.
#[inline(always)]
pub(super) fn link(index: u32) -> Option<&'static Link> {
    // SAFETY: a live map value of plain numbers; what the agent changes in it meanwhile is as good.
    unsafe { LINKS.get(index).or_else(|| LINKS.get(0)) }
}

/// Whether a link leads away from this node.
#[inline(always)]
pub(super) fn is_uplink(index: u32) -> bool {
    link(index).is_some_and(|link| link.role == LinkRole::Uplink)
}
