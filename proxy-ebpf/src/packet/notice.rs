//! ICMP errors of our own: port unreachable, too big, time exceeded. The packet that they are about becomes the
//! error and goes back to where it came from.

use core::arch::asm;

use aya_ebpf::{btf_maps::PerCpuArray, helpers::generated::bpf_csum_diff, macros::btf_map};
use proxy_common::{Protocol, checksum};

use super::{
    clock,
    context::Context,
    headers::{ETHERNET, Headers, Kind, protocol},
    rewrite::WriteIp,
    tables::PacketIp,
    tc::Tc,
    work::Work,
};
use crate::{
    count::count,
    ip::{V4, V6},
};

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

/// An IP family, for writing errors.
pub(crate) trait Notice: WriteIp {
    /// The headers in front of the quoted bytes: IP and ICMP.
    type Front: Copy;

    /// `sum` is the sum of the `quoted` quoted bytes.
    fn front(headers: &Headers<Self::Words>, message: Message, quoted: u32, sum: u64) -> Self::Front;
}

/// Answers a packet with an error; the verdict.
#[inline(never)]
pub(super) fn send<I: Notice>(ctx: Tc, headers: &Headers<I::Words>, message: Message) -> i32 {
    // No errors about errors (RFC 1122 section 3.2.2).
    if headers.kind == Kind::IcmpError {
        return Tc::DROP;
    }
    let Some(errors) = ICMP_ERRORS.get_ptr_mut(0) else { return Tc::DROP };
    // SAFETY: the value belongs to this CPU.
    let errors = unsafe { &mut *errors };
    if !may_send(errors) || answer::<I>(ctx, headers, message, &mut errors.quoted).is_none() {
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

#[inline(always)]
fn may_send(errors: &mut Errors) -> bool {
    let now = clock::now() >> WINDOW_SHIFT;
    if errors.window != now {
        (errors.window, errors.sent) = (now, 0);
    }
    errors.sent += 1;
    errors.sent <= MOST_IN_A_WINDOW
}

/// Makes the error out of the packet, but for the link layer's addresses.
#[inline(always)]
fn answer<I: Notice>(
    ctx: Tc,
    headers: &Headers<I::Words>,
    message: Message,
    bytes: &mut [u32; MOST_QUOTED as usize / 4],
) -> Option<()> {
    let before_transport = headers.transport.wrapping_sub(headers.ip);
    let kept = if protocol(headers.protocol) == Some(Protocol::Tcp) { 20 } else { 8 };
    let quoted = before_transport.wrapping_add(kept);
    if !(8..=MOST_QUOTED).contains(&quoted) || before_transport > MOST_QUOTED {
        return None;
    }
    *bytes = [0; MOST_QUOTED as usize / 4];
    // SAFETY: at most the size of the buffer.
    let copied = unsafe { ctx.copy(headers.ip, bytes.as_mut_ptr().cast(), within_buffer(quoted)) };
    let front = ETHERNET + I::HEADER + 8;
    let grown = copied && ctx.cut(ETHERNET + quoted) && ctx.make_room((I::HEADER + 8) as i32);
    if !grown {
        return None;
    }
    // SAFETY: both sizes are at most that of the buffer.
    let (whole, network) = unsafe {
        let bytes = bytes.as_mut_ptr();
        (
            bpf_csum_diff(core::ptr::null_mut(), 0, bytes, MOST_QUOTED, 0) as u32,
            bpf_csum_diff(core::ptr::null_mut(), 0, bytes, within_buffer(before_transport), 0) as u32,
        )
    };
    let transport = match unfinished::<I>(ctx, headers, front + before_transport) {
        // What the network card makes of it adds up to the complement of what stands there now.
        Some(pseudo) => u32::from(!pseudo),
        None => checksum::difference(u64::from(network), u64::from(whole), 1),
    };
    let sum = u64::from(network) + u64::from(transport);
    ctx.write(ETHERNET, I::front(headers, message, quoted, sum), true).then_some(())
}

/// A number from 1 to [`MOST_QUOTED`] as it is, in a way that the verifier can follow: what the compiler knows of it, it does
/// not say again.
#[inline(always)]
fn within_buffer(bytes: u32) -> u32 {
    const { assert!(MOST_QUOTED == 128) };
    let mut number = u64::from(bytes);
    // SAFETY: arithmetic on a register; it touches nothing else.
    unsafe {
        asm!(
            "{0} += -1",
            "{0} &= 127",
            "{0} += 1",
            inout(reg) number,
            options(pure, nomem, nostack)
        );
    }
    number as u32
}

/// The transport checksum at `transport` of the frame, if it is one that the network card is still to make.
///
/// Nothing says so but that the kernel leaves such a checksum alone when what it covers changes.
#[inline(always)]
fn unfinished<I: PacketIp>(ctx: Tc, headers: &Headers<I::Words>, transport: u32) -> Option<u16> {
    let at = match protocol(headers.protocol) {
        Some(Protocol::Tcp) => transport + 16,
        Some(Protocol::Udp) => transport + 6,
        _ => return None,
    };
    let before = word(ctx, at)?;
    if !ctx.fix_checksum(at, 1, false, false) {
        return None;
    }
    if word(ctx, at)? == before {
        return Some(before);
    }
    ctx.write(at, before, false);
    None
}

#[inline(always)]
fn word(ctx: Tc, at: u32) -> Option<u16> {
    let mut word = 0_u16;
    // SAFETY: two bytes.
    unsafe { ctx.copy(at, (&raw mut word).cast(), 2) }.then_some(word)
}

const HOPS: u8 = 64;

impl Notice for V4 {
    type Front = [u32; 7];

    #[inline(always)]
    fn front(headers: &Headers<[u32; 1]>, message: Message, quoted: u32, sum: u64) -> [u32; 7] {
        let (kind, code) = match message.problem {
            Problem::PortUnreachable => (3, 3),
            Problem::TimeExceeded => (11, 0),
            Problem::TooBig => (3, 4),
        };
        let [high, low] = ((quoted + 28) as u16).to_be_bytes();
        let words = [
            u32::from_ne_bytes([0x45, 0, high, low]),
            0,
            u32::from_ne_bytes([HOPS, Self::ICMP, 0, 0]),
            headers.destination[0],
            headers.source[0],
        ];
        let [a, b, c, d, e] = words;
        let [check0, check1] =
            checksum::of(u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d) + u64::from(e))
                .to_ne_bytes();
        let icmp = u32::from_ne_bytes([kind, code, 0, 0]);
        let argument = u32::from(message.mtu).to_be();
        let [icmp0, icmp1] = checksum::of(u64::from(icmp) + u64::from(argument) + sum).to_ne_bytes();
        [
            a,
            b,
            u32::from_ne_bytes([HOPS, Self::ICMP, check0, check1]),
            d,
            e,
            u32::from_ne_bytes([kind, code, icmp0, icmp1]),
            argument,
        ]
    }
}

impl Notice for V6 {
    type Front = [u32; 12];

    #[inline(always)]
    fn front(headers: &Headers<[u32; 4]>, message: Message, quoted: u32, sum: u64) -> [u32; 12] {
        let (kind, code) = match message.problem {
            Problem::PortUnreachable => (1, 4),
            Problem::TimeExceeded => (3, 0),
            Problem::TooBig => (2, 0),
        };
        let length = quoted + 8;
        let [high, low] = (length as u16).to_be_bytes();
        let [a, b, c, d] = headers.destination;
        let [e, f, g, h] = headers.source;
        let icmp = u32::from_ne_bytes([kind, code, 0, 0]);
        let argument = u32::from(message.mtu).to_be();
        // The pseudo-header of RFC 8200 section 8.1.
        let pseudo = Self::sum(headers.destination)
            + Self::sum(headers.source)
            + u64::from(length.to_be())
            + u64::from(u32::from(Self::ICMP).to_be());
        let [icmp0, icmp1] = checksum::of(u64::from(icmp) + u64::from(argument) + pseudo + sum).to_ne_bytes();
        [
            u32::from_ne_bytes([0x60, 0, 0, 0]),
            u32::from_ne_bytes([high, low, Self::ICMP, HOPS]),
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            u32::from_ne_bytes([kind, code, icmp0, icmp1]),
            argument,
        ]
    }
}
