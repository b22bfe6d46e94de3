use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::generated::{
        bpf_fib_lookup, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
        bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};

use super::{
    context::{Context, is_inside, place},
    headers::Headers,
    notice::{self, Message, Notice},
    route::Request,
};
use crate::maps::REWRITTEN;

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const BPF_F_RECOMPUTE_CSUM: u64 = 1;
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;
const BPF_F_INGRESS: u64 = 1;
const BPF_ADJ_ROOM_MAC: u32 = 1;
/// Which bits of a tag are the VLAN's number. It is 0 in a tag that gives a priority and no VLAN.
const VLAN_NUMBER: u32 = 0xfff;

/// Bits of a buffer's `tc_index` that are not ours: Cilium has flags there.
const OTHERS_BITS: u32 = 0x7f;

/// A socket buffer.
///
/// What it holds is written through helpers only: a program that writes to it directly has the kernel copy the
/// headers of every packet that it shares with somebody, whether or not the program then writes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Tc(*mut __sk_buff);

impl Tc {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self(ctx.as_ptr().cast())
    }

    /// Copies `length` bytes at `offset` to `to`.
    ///
    /// # Safety
    ///
    /// `to` has room for `length` bytes.
    #[inline(always)]
    pub(super) unsafe fn copy(self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the program's own context; the caller gives room for the bytes.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to.cast(), length) == 0 }
    }

    /// Cuts the frame off after `length` bytes.
    #[inline(always)]
    pub(super) fn cut(self, length: u32) -> bool {
        // SAFETY: the program's own context.
        unsafe { bpf_skb_change_tail(self.0, length, 0) == 0 }
    }

    /// Makes room between the link layer's header and what follows it.
    #[inline(always)]
    pub(super) fn make_room(self, length: i32) -> bool {
        // SAFETY: the program's own context.
        unsafe { bpf_skb_adjust_room(self.0, length, BPF_ADJ_ROOM_MAC, 0) == 0 }
    }

    /// Hands the frame to the stack, as if it had come in on the link.
    #[inline(always)]
    pub(super) fn hand_up(self) -> i32 {
        // SAFETY: the helper takes plain numbers.
        unsafe { bpf_redirect(self.link(), BPF_F_INGRESS) as i32 }
    }

    /// It stays with the buffer from link to link, also through a redirect, and few queueing disciplines ask for it.
    #[inline(always)]
    fn tc_index(self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { read_volatile(&raw const (*self.0).tc_index) }
    }

    #[inline(always)]
    fn data(self) -> (usize, usize) {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe {
            (
                read_volatile(&raw const (*self.0).data) as usize,
                read_volatile(&raw const (*self.0).data_end) as usize,
            )
        }
    }

    /// Whether the frame is of a VLAN. Here the tag is kept beside the frame, which looks as if it had none. Without one,
    /// older kernels leave in its place what was there before.
    #[inline(always)]
    fn is_tagged(self) -> bool {
        // SAFETY: as in `data`.
        unsafe {
            read_volatile(&raw const (*self.0).vlan_present) != 0
                && read_volatile(&raw const (*self.0).vlan_tci) & VLAN_NUMBER != 0
        }
    }
}

impl Context for Tc {
    const XDP: bool = false;
    const PASS: i32 = TC_ACT_UNSPEC;
    const DROP: i32 = TC_ACT_SHOT;

    #[inline(always)]
    fn length(self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { read_volatile(&raw const (*self.0).len) }
    }

    #[inline(always)]
    fn link(self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { read_volatile(&raw const (*self.0).ifindex) }
    }

    #[inline(always)]
    fn made_here(self) -> bool {
        // SAFETY: as in `data`.
        unsafe { read_volatile(&raw const (*self.0).ingress_ifindex) == 0 }
    }

    #[inline(always)]
    fn is_rewritten(self) -> bool {
        self.tc_index() & !OTHERS_BITS == REWRITTEN.load()
    }

    #[inline(always)]
    fn set_rewritten(self, rewritten: bool) {
        let index = self.tc_index() & OTHERS_BITS | if rewritten { REWRITTEN.load() } else { 0 };
        // SAFETY: as in `data`; the field is one of those that programs may write.
        unsafe { write_volatile(&raw mut (*self.0).tc_index, index) }
    }

    #[inline(always)]
    fn segment_payload(self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { read_volatile(&raw const (*self.0).gso_size) }
    }

    #[inline(always)]
    fn reach(self, bytes: u32) -> bool {
        let (data, end) = self.data();
        if is_inside(place(data, bytes), end) {
            return true;
        }
        // SAFETY: the program's own context.
        bytes <= self.length() && unsafe { bpf_skb_pull_data(self.0, bytes) == 0 }
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Option<T> {
        let (data, end) = self.data();
        let start = place(data, offset);
        if !is_inside(start + size_of::<T>(), end) {
            return None;
        }
        // SAFETY: inside the linear part of the buffer, as was just compared.
        Some(unsafe { read_volatile(start as *const T) })
    }

    #[inline(always)]
    fn write<T: Copy>(self, offset: u32, value: T, payload: bool) -> bool {
        let flags = if payload { BPF_F_RECOMPUTE_CSUM } else { 0 };
        let from: *const T = &raw const value;
        // SAFETY: the program's own context, and a value of that many bytes.
        unsafe {
            bpf_skb_store_bytes(self.0.cast(), offset, from.cast::<c_void>(), size_of::<T>() as u32, flags)
                == 0
        }
    }

    #[inline(always)]
    fn fix_checksum(self, offset: u32, difference: u32, pseudo: bool, optional: bool) -> bool {
        let pseudo = if pseudo { BPF_F_PSEUDO_HDR } else { 0 };
        let optional = if optional { BPF_F_MARK_MANGLED_0 } else { 0 };
        // A field size of 0 in the flags: `to` is a difference.
        // SAFETY: the program's own context.
        unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference), pseudo | optional) == 0 }
    }

    #[inline(always)]
    fn can_send(self, _link: u32) -> bool {
        true
    }

    #[inline(always)]
    fn send(self, link: u32, macs: [u16; 6]) -> i32 {
        if !self.write(0, macs, false) {
            return Self::DROP;
        }
        // SAFETY: the helper takes plain numbers.
        unsafe { bpf_redirect(link, 0) as i32 }
    }

    #[inline(always)]
    fn send_to_neighbour(self, link: u32) -> i32 {
        // SAFETY: without a next hop the helper takes the one of the packet's own route.
        unsafe { bpf_redirect_neigh(link, core::ptr::null_mut(), 0, 0) as i32 }
    }

    #[inline(always)]
    fn answer<I: Notice>(self, headers: &Headers<I::Words>, message: Message) -> i32 {
        notice::send::<I>(self, headers, message)
    }

    #[inline(always)]
    fn ethertype(self) -> Option<u16> {
        if self.is_tagged() { None } else { self.read::<u16>(12).map(u16::from_be) }
    }

    #[inline(always)]
    fn look_up_route(self, request: *mut Request) -> i64 {
        // SAFETY: the program's own context, and a request as long as the kernel's structure.
        unsafe { bpf_fib_lookup(self.0.cast(), request.cast(), size_of::<Request>() as i32, 0) }
    }
}
