//! Answers of our own: ICMP errors (port unreachable, too big, time exceeded), and for a TCP segment that nobody serves a
//! reset. The packet that they are about becomes the answer, and goes back to where it came from.

mod error;
mod front;
mod reset;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use proxy_common::Protocol;

pub(crate) use self::front::Notice;

use super::{
    clock,
    context::Context,
    headers::{Headers, Kind, protocol},
    tc::Tc,
    work::Work,
};
use crate::count::count;

/// So many errors a CPU sends in each window of 2^27 nanoseconds: somewhat less than 1,000 a second.
const WINDOW_SHIFT: u32 = 27;
const MOST_IN_A_WINDOW: u64 = 128;

/// What an error quotes at most. The IP header and the first bytes of the transport header are what it has to.
const MOST_QUOTED: u32 = 128;

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Problem {
    /// There is no endpoint, or no such port.
    PortUnreachable,
    /// It has passed too many routers.
    TimeExceeded,
    /// The way on takes no packets as large.
    TooBig,
}

/// What an error says.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub(super) problem: Problem,
    /// Bytes that the way on takes; 0 with another problem.
    pub(super) mtu: u16,
}

/// In the place of a verdict: the packet is to be answered with the message that stands in its work. All answers are sent
/// from one place, which the verifier then follows once.
pub(super) const OWED: i32 = i32::MIN;

/// Has the packet answered with an error. XDP cannot make one out of a packet; the same program at TC does.
#[inline(always)]
pub(super) fn owe<C: Context, A>(work: &mut Work<A>, problem: Problem, mtu: u16) -> i32 {
    if C::XDP {
        return C::PASS;
    }
    work.message = Message { problem, mtu };
    OWED
}

/// What a CPU keeps for its errors.
#[repr(C)]
struct Errors {
    /// The current window, and how many errors have been sent in it.
    window: u64,
    sent: u64,
    /// Bytes that are being quoted, and zeroes.
    quoted: [u32; MOST_QUOTED as usize / 4],
}

#[btf_map]
static ICMP_ERRORS: PerCpuArray<Errors, 1> = PerCpuArray::new();

/// Answers a packet; the verdict.
#[inline(never)]
pub(super) fn send<I: Notice>(ctx: Tc, headers: &Headers<I::Words>, message: Message) -> i32 {
    // No errors about errors (RFC 1122 section 3.2.2).
    if headers.kind == Kind::IcmpError {
        return Tc::DROP;
    }
    let Some(errors) = ICMP_ERRORS.get_ptr_mut(0) else { return Tc::DROP };
    // SAFETY: the value belongs to this CPU.
    let errors = unsafe { &mut *errors };
    if !may_send(errors) || make::<I>(ctx, headers, message, errors).is_none() {
        count(|counters| &mut counters.icmp_suppressed);
        return Tc::DROP;
    }
    let Some([a, b, c, d, e, f]) = ctx.read::<[u16; 6]>(0) else { return Tc::DROP };
    count(|counters| &mut counters.icmp_sent);
    let macs = [d, e, f, a, b, c];
    if !ctx.made_here() {
        return ctx.send(ctx.link(), macs);
    }
    if ctx.write(0, macs, false) { ctx.hand_up() } else { Tc::DROP }
}

/// Makes the answer out of the packet, but for the link layer's addresses.
///
/// A TCP client is told by a reset. An ICMP error would do as well, and is what kube-proxy sends, but some firewalls let
/// none through, and the kernel forgets one that comes while the client is still inside connect().
#[inline(always)]
fn make<I: Notice>(
    ctx: Tc,
    headers: &Headers<I::Words>,
    message: Message,
    errors: &mut Errors,
) -> Option<()> {
    let is_plain = headers.transport.wrapping_sub(headers.ip) == I::HEADER;
    if message.problem == Problem::PortUnreachable
        && protocol(headers.protocol) == Some(Protocol::Tcp)
        && is_plain
    {
        return reset::make::<I>(ctx, headers);
    }
    error::make::<I>(ctx, headers, message, &mut errors.quoted)
}

#[inline(always)]
fn may_send(errors: &mut Errors) -> bool {
    let now = clock::now() >> WINDOW_SHIFT;
    if errors.window != now {
        (errors.window, errors.sent) = (now, 0);
    }
    errors.sent += 1;
    errors.sent <= MOST_IN_A_WINDOW
}
