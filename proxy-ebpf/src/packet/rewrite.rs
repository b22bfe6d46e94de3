//! Rewriting a packet: addresses, ports, and every checksum that covers them.

use proxy_common::{Protocol, checksum, crc32c};

use super::{
    context::Context,
    flow::Change,
    headers::{Headers, protocol},
    tables::PacketIp,
    work::Work,
};
use crate::ip::{V4, V6};

/// Writing an IP header.
pub(crate) trait WriteIp: super::headers::ReadIp {
    /// Whether the checksum of an ICMP message covers the addresses of its header.
    const ICMP_COVERS_ADDRESSES: bool;

    /// What of a change of addresses is left of it in a sum over the whole header.
    fn uncovered(addresses: u32) -> u32;

    /// Gives the header at `headers.ip` these addresses and time to live, and its checksum. `whole`: it is the
    /// packet's own header, not a quoted one.
    fn write<C: Context>(
        ctx: C,
        headers: &Headers<Self::Words>,
        source: Self::Words,
        destination: Self::Words,
        ttl: u8,
        whole: bool,
    ) -> bool;
}

/// Rewrites the whole packet. False when it is shorter than it was a moment ago, which cannot be.
#[inline(always)]
pub(super) fn all<I: WriteIp, C: Context>(ctx: C, work: &Work<I::Words>) -> bool {
    let Work { headers, change, ttl, .. } = work;
    I::write(ctx, headers, change.source, change.destination, *ttl, true)
        && (headers.is_later_fragment() || transport::<I, C>(ctx, headers, change))
}

/// What the pseudo-header's part of a checksum changes by.
#[inline(always)]
pub(super) fn addresses<I: PacketIp>(
    headers: &Headers<I::Words>,
    source: I::Words,
    destination: I::Words,
) -> u32 {
    checksum::difference(
        I::sum(headers.source) + I::sum(headers.destination),
        I::sum(source) + I::sum(destination),
        2 * I::WORDS,
    )
}

/// Both ports as they stand in a transport header.
#[inline(always)]
pub(in crate::packet) const fn ports(source: u16, destination: u16) -> u32 {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(never)]
fn transport<I: PacketIp, C: Context>(
    ctx: C,
    headers: &Headers<I::Words>,
    change: &Change<I::Words>,
) -> bool {
    let old = ports(headers.source_port, headers.destination_port);
    let new = ports(change.source_port, change.destination_port);
    let at = headers.transport;
    let (checksum_at, optional) = match protocol(headers.protocol) {
        Some(Protocol::Tcp) => (at + 16, false),
        Some(Protocol::Udp) => (at + 6, true),
        _ => return old == new || sctp::<C, I::Words>(ctx, headers, old, new),
    };
    let pseudo = addresses::<I>(headers, change.source, change.destination);
    let ports = checksum::difference(old as u64, new as u64, 1);
    if old != new && !ctx.write(at, new, false) {
        return false;
    }
    if C::XDP {
        return ctx.fix_checksum(checksum_at, checksum::both(pseudo, ports), false, optional);
    }
    // A checksum that the network card is still to make holds the pseudo-header's part alone.
    ctx.fix_checksum(checksum_at, pseudo, true, optional)
        && (old == new || ctx.fix_checksum(checksum_at, ports, false, optional))
}

/// The checksum of SCTP covers its ports, and no addresses.
///
/// A kernel leaves it to the network card to make one, where that can (a veth says so, and none is ever made), and the card
/// takes the place of the checksum for zero. Of real checksums one in four billions is zero: such a packet is lost, as it may
/// be on any wire.
#[inline(never)]
fn sctp<C: Context, A: Copy>(ctx: C, headers: &Headers<A>, old: u32, new: u32) -> bool {
    const UNFINISHED: u32 = 0;
    let at = headers.transport;
    let length = headers.length.wrapping_sub(at.wrapping_sub(headers.ip)) & 0xffff;
    let Some(before) = ctx.read::<u32>(at + 8) else { return false };
    if before == UNFINISHED {
        return ctx.write(at, new, true);
    }
    // Lowest byte first, in the packet and in the computation.
    let change = crc32c::change(u32::from_le(old ^ new), length);
    ctx.write(at + 8, before ^ change.to_le(), true) && ctx.write(at, new, true)
}

impl WriteIp for V4 {
    const ICMP_COVERS_ADDRESSES: bool = false;

    #[inline(always)]
    fn uncovered(_addresses: u32) -> u32 {
        0
    }

    #[inline(always)]
    fn write<C: Context>(
        ctx: C,
        headers: &Headers<[u32; 1]>,
        source: [u32; 1],
        destination: [u32; 1],
        ttl: u8,
        _whole: bool,
    ) -> bool {
        let at = headers.ip;
        let Some(before) = ctx.read::<u16>(at + 10) else { return false };
        let lives = |ttl: u8| u32::from(u16::from_ne_bytes([ttl, headers.protocol]));
        let old = u64::from(lives(headers.ttl)) + Self::sum(headers.source) + Self::sum(headers.destination);
        let new = u64::from(lives(ttl)) + Self::sum(source) + Self::sum(destination);
        let sum = checksum::changed(before, checksum::difference(old, new, 3));
        let [low, high] = sum.to_ne_bytes();
        let words = [u32::from_ne_bytes([ttl, headers.protocol, low, high]), source[0], destination[0]];
        // The sum over the header stays what it was.
        ctx.write(at + 8, words, false)
    }
}

impl WriteIp for V6 {
    const ICMP_COVERS_ADDRESSES: bool = true;

    #[inline(always)]
    fn uncovered(addresses: u32) -> u32 {
        addresses
    }

    #[inline(always)]
    fn write<C: Context>(
        ctx: C,
        headers: &Headers<[u32; 4]>,
        source: [u32; 4],
        destination: [u32; 4],
        ttl: u8,
        whole: bool,
    ) -> bool {
        let at = headers.ip;
        let ([a, b, c, d], [e, f, g, h]) = (source, destination);
        // The kernel undoes the pseudo-header's change in a sum that the card has made, as if the header had a
        // checksum of its own: it must have seen these bytes change.
        ctx.write(at + 8, [a, b, c, d, e, f, g, h], whole)
            && (ttl == headers.ttl || ctx.write(at + 7, ttl, whole))
    }
}
