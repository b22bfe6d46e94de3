use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::generated::{bpf_fib_lookup, bpf_redirect},
    programs::XdpContext,
};
use proxy_common::checksum;

use super::{
    context::{Context, is_inside, place},
    headers::Headers,
    notice::{Message, Notice},
    route::Request,
};
use crate::{count::count, maps::LINKS};

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

/// A frame in the driver.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Xdp(*mut xdp_md);

impl Xdp {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self(ctx.as_ptr().cast())
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

    #[inline(always)]
    fn place<T>(self, offset: u32) -> Option<*mut T> {
        let (data, end) = self.data();
        let start = place(data, offset);
        if !is_inside(start + size_of::<T>(), end) { None } else { Some(start as *mut T) }
    }
}

impl Context for Xdp {
    const XDP: bool = true;
    const PASS: i32 = XDP_PASS;
    const DROP: i32 = XDP_DROP;

    #[inline(always)]
    fn length(self) -> u32 {
        let (data, end) = self.data();
        (end - data) as u32
    }

    #[inline(always)]
    fn link(self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { read_volatile(&raw const (*self.0).ingress_ifindex) }
    }

    #[inline(always)]
    fn made_here(self) -> bool {
        false
    }

    /// There is nothing before a driver.
    #[inline(always)]
    fn is_rewritten(self) -> bool {
        false
    }

    /// A frame bears no marks; TC knows on which links it comes second.
    #[inline(always)]
    fn set_rewritten(self, _rewritten: bool) {}

    #[inline(always)]
    fn segment_payload(self) -> u32 {
        0
    }

    #[inline(always)]
    fn reach(self, bytes: u32) -> bool {
        let (data, end) = self.data();
        is_inside(place(data, bytes), end)
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: inside the frame, as was just compared.
        self.place(offset).map(|place: *mut T| unsafe { read_volatile(place) })
    }

    #[inline(always)]
    fn write<T: Copy>(self, offset: u32, value: T, _payload: bool) -> bool {
        let Some(place) = self.place(offset) else { return false };
        // SAFETY: inside the frame, as was just compared.
        unsafe { write_volatile(place, value) };
        true
    }

    #[inline(always)]
    fn fix_checksum(self, offset: u32, difference: u32, _pseudo: bool, optional: bool) -> bool {
        let Some(before) = self.read::<u16>(offset) else { return false };
        if optional && before == 0 {
            return true;
        }
        let after = checksum::changed(before, difference);
        self.write(offset, if optional && after == 0 { 0xffff } else { after }, false)
    }

    /// The kernel drops what it is told to redirect to a link that takes no frames from drivers.
    #[inline(always)]
    fn can_send(self, link: u32) -> bool {
        // SAFETY: one byte of a live map value.
        link == self.link() || LINKS.get_ptr(link).is_some_and(|link| unsafe { (*link).xdp } != 0)
    }

    #[inline(always)]
    fn send(self, link: u32, macs: [u16; 6]) -> i32 {
        if !self.write(0, macs, false) {
            return Self::DROP;
        }
        count(|counters| &mut counters.xdp_forwarded);
        if link == self.link() {
            return XDP_TX;
        }
        // SAFETY: the helper takes plain numbers.
        unsafe { bpf_redirect(link, 0) as i32 }
    }

    #[inline(always)]
    fn send_to_neighbour(self, _link: u32) -> i32 {
        Self::PASS
    }

    /// XDP cannot make an error out of a packet; the same program at TC does.
    #[inline(always)]
    fn answer<I: Notice>(self, _headers: &Headers<I::Words>, _message: Message) -> i32 {
        Self::PASS
    }

    #[inline(always)]
    fn ethertype(self) -> Option<u16> {
        self.read::<u16>(12).map(u16::from_be)
    }

    #[inline(always)]
    fn look_up_route(self, request: *mut Request) -> i64 {
        // SAFETY: the program's own context, and a request as long as the kernel's structure.
        unsafe { bpf_fib_lookup(self.0.cast(), request.cast(), size_of::<Request>() as i32, 0) }
    }
}
