//! What the packet path needs of a packet, whether it is a socket buffer (TC) or a frame (XDP).

use core::arch::asm;

use super::{
    headers::Headers,
    notice::{Message, Notice},
    route::Request,
};

/// A packet that a program was called for.
pub(crate) trait Context: Copy {
    /// Whether this is the driver's frame, before the kernel has looked at it.
    const XDP: bool;
    /// Go on, for other programs and the stack.
    const PASS: i32;
    /// Drop.
    const DROP: i32;

    /// Bytes of the frame.
    fn length(self) -> u32;

    /// Index of the link that it has come in on, or is leaving by.
    fn link(self) -> u32;

    /// Whether it was made on this node, and has come in on no link.
    fn made_here(self) -> bool;

    /// Whether a program of this node has rewritten the packet already: at a link below this one, or before it was sent to
    /// this one.
    fn is_rewritten(self) -> bool;

    /// Says that it is, or that it counts as a new one.
    fn set_rewritten(self, rewritten: bool);

    /// Payload bytes of each segment of a packet that stands for several; 0 for any other.
    fn segment_payload(self) -> u32;

    /// Makes the first `bytes` bytes readable with [`Self::read`]; false when the frame is shorter.
    fn reach(self, bytes: u32) -> bool;

    /// The value at `offset`, as it stands in the frame; `None` outside of what can be read.
    fn read<T: Copy>(self, offset: u32) -> Option<T>;

    /// Writes the value at `offset`. `payload` says that it is not covered by a checksum of its own: a sum over
    /// the whole frame that the network card has made then changes too.
    fn write<T: Copy>(self, offset: u32, value: T, payload: bool) -> bool;

    /// Changes the Internet checksum at `offset` by `difference`, an unfolded sum of what is now there and was
    /// not, and of the complement of what was. `pseudo`: what changed is in the pseudo-header, not in the
    /// segment. `optional`: zero means that there is none (UDP).
    fn fix_checksum(self, offset: u32, difference: u32, pseudo: bool, optional: bool) -> bool;

    /// Whether a frame can be sent out of `link` from here.
    fn can_send(self, link: u32) -> bool;

    /// Sends the frame out of a link, with the addresses of its link layer.
    fn send(self, link: u32, macs: [u16; 6]) -> i32;

    /// Sends the frame out of a link, to a neighbour that the kernel has to find first.
    fn send_to_neighbour(self, link: u32) -> i32;

    /// Answers the packet with an ICMP error, if that can be done from here; the verdict.
    fn answer<I: Notice>(self, headers: &Headers<I::Words>, message: Message) -> i32;

    /// `bpf_fib_lookup`; `request` is a `struct bpf_fib_lookup`.
    fn look_up_route(self, request: *mut Request) -> i64;

    /// The ethertype of the frame, in host order. That of a VLAN's tag, or `None`, for a frame of a VLAN.
    fn ethertype(self) -> Option<u16>;
}

/// Whether a packet's bytes up to `behind` are before its `end`. What the compiler would make of a comparison for a single byte,
/// the verifier does not take for one.
#[inline(always)]
pub(super) fn is_inside(mut behind: usize, end: usize) -> bool {
    // SAFETY: it adds nothing. A line without an instruction would not do: the kernel wants one for each line it is told of.
    unsafe { asm!("{0} += 0", inout(reg) behind, options(pure, nomem, nostack)) };
    behind <= end
}

/// The place `offset` bytes behind `data`, where a packet begins. An offset is less than this anyway, but the verifier has lost
/// sight of that where it was kept in memory meanwhile; and before it is added, in one step with it, for that of kernel 5.10
/// also forgets the limits of what the compiler has put on the stack.
#[inline(always)]
pub(super) fn place(data: usize, offset: u32) -> usize {
    let mut place = offset as usize;
    // SAFETY: arithmetic on registers; it touches nothing else.
    unsafe { asm!("{0} &= 4095", "{0} += {1}", inout(reg) place, in(reg) data, options(nomem, nostack)) };
    place
}
