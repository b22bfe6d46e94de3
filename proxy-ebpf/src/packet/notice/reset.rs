//! A TCP reset out of the segment that it is about (RFC 9293 section 3.10.7.1).

use proxy_common::checksum;

use super::{Notice, error::unfinished};
use crate::packet::{
    context::Context,
    headers::{ETHERNET, Headers},
    rewrite::ports,
    tc::Tc,
};

/// Bytes of a TCP header without options.
const TCP: u32 = 20;
/// Five words of header; RST and ACK.
const OFFSET_AND_FLAGS: [u8; 2] = [0x50, 0x14];

/// Makes the reset, but for the link layer's addresses. The segment has no other headers between IP's and TCP's.
#[inline(always)]
pub(super) fn make<I: Notice>(ctx: Tc, headers: &Headers<I::Words>) -> Option<()> {
    let sequence = u32::from_be(ctx.read(headers.transport + 4)?);
    let payload = headers.length.wrapping_sub(I::HEADER + u32::from(headers.transport_length));
    // The SYN counts as one.
    let acknowledged = sequence.wrapping_add(payload).wrapping_add(1);
    let is_unfinished = unfinished::<I>(ctx, headers, headers.transport).is_some();
    if !ctx.cut(ETHERNET + I::HEADER + TCP) {
        return None;
    }
    let [offset, flags] = OFFSET_AND_FLAGS;
    let [a, b] = [ports(headers.destination_port, headers.source_port), acknowledged.to_be()];
    let c = u32::from_ne_bytes([offset, flags, 0, 0]);
    let pseudo = I::pseudo(headers, proxy_common::Protocol::Tcp as u8, TCP);
    // What the network card finishes begins as the sum of the pseudo-header.
    let sum = if is_unfinished {
        !checksum::of(pseudo)
    } else {
        checksum::of(pseudo + u64::from(a) + u64::from(b) + u64::from(c))
    };
    let [high, low] = sum.to_ne_bytes();
    let tcp = [a, 0, b, c, u32::from_ne_bytes([high, low, 0, 0])];
    (ctx.write(ETHERNET + I::HEADER, tcp, true)
        && ctx.write(ETHERNET, I::header(headers, proxy_common::Protocol::Tcp as u8, TCP), true))
    .then_some(())
}
