//! An ICMP error out of the packet that it is about.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_csum_diff;
use proxy_common::{Protocol, checksum};

use super::{MOST_QUOTED, Message, Notice};
use crate::packet::{
    context::Context,
    headers::{ETHERNET, Headers, protocol},
    tables::PacketIp,
    tc::Tc,
};

/// Bytes of an ICMP header.
const ICMP: u32 = 8;

/// Makes the error, but for the link layer's addresses.
#[inline(always)]
pub(super) fn make<I: Notice>(
    ctx: Tc,
    headers: &Headers<I::Words>,
    message: Message,
    bytes: &mut [u32; MOST_QUOTED as usize / 4],
) -> Option<()> {
    let before_transport = headers.transport.wrapping_sub(headers.ip);
    let kept = kept::<I>(headers, before_transport);
    let quoted = before_transport.wrapping_add(kept);
    if !(8..=MOST_QUOTED).contains(&quoted) || before_transport > MOST_QUOTED {
        return None;
    }
    *bytes = [0; MOST_QUOTED as usize / 4];
    // SAFETY: at most the size of the buffer.
    let copied = unsafe { ctx.copy(headers.ip, bytes.as_mut_ptr().cast(), within_buffer(quoted)) };
    let front = ETHERNET + I::HEADER + ICMP;
    let grown = copied && ctx.cut(ETHERNET + quoted) && ctx.make_room((I::HEADER + ICMP) as i32);
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
    let length = quoted + ICMP;
    let pseudo = if I::ICMP_COVERS_ADDRESSES { I::pseudo(headers, I::ICMP, length) } else { 0 };
    let [kind, code] = I::kind_and_code(message.problem);
    let argument = u32::from(message.mtu).to_be();
    let unsummed = u64::from(u32::from_ne_bytes([kind, code, 0, 0])) + u64::from(argument);
    let [high, low] = checksum::of(unsummed + pseudo + sum).to_ne_bytes();
    let icmp = [u32::from_ne_bytes([kind, code, high, low]), argument];
    (ctx.write(ETHERNET + I::HEADER, icmp, true)
        && ctx.write(ETHERNET, I::header(headers, I::ICMP, length), true))
    .then_some(())
}

/// Bytes of the transport header that are quoted. 8 are what RFC 792 asks for. The kernel shortens no packet by bytes that
/// its network card is still to put a checksum into, which TCP has further behind; and believes an error about an INIT of SCTP
/// only if it quotes the tag, which is the last of 20 (RFC 9260 section 10).
#[inline(always)]
fn kept<I: PacketIp>(headers: &Headers<I::Words>, before_transport: u32) -> u32 {
    match protocol(headers.protocol) {
        Some(Protocol::Tcp) => 20,
        Some(Protocol::Sctp) if headers.length >= before_transport.wrapping_add(20) => 20,
        _ => 8,
    }
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
pub(super) fn unfinished<I: PacketIp>(ctx: Tc, headers: &Headers<I::Words>, transport: u32) -> Option<u16> {
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
