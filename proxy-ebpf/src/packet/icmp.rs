//! ICMP errors about packets of flows (RFC 792, RFC 4443): the packet that is quoted, and the error's own addresses,
//! become what the receiver knows.

use proxy_common::{Hook, Onward, Protocol, checksum};

use super::{
    context::Context,
    flow,
    headers::protocol,
    onward,
    rewrite::{WriteIp, addresses, ports},
    tables::Key,
    work::Work,
};
use crate::count::count;

/// Bytes of an ICMP header.
const ICMP: u32 = 8;

/// Translates an ICMP error that quotes a packet of a flow. The quoted packet went the other way: turned round, it is the
/// key of the direction that the error takes.
#[inline(never)]
pub(super) fn translate<I: WriteIp, C: Context>(ctx: C, hook: Hook, work: &mut Work<I::Words>) -> i32 {
    if !read_quoted::<I, C>(ctx, work) || !flow::look_up::<I>(&work.key, &mut work.change, hook) {
        return C::PASS;
    }
    // Routers on the way keep their own address, but for an error that comes back by the link that it came from: to the
    // router it would come from itself.
    let keeps = work.change.onward == Onward::Stack && !I::equal(work.headers.source, work.key.source);
    work.source = if keeps { work.headers.source } else { work.change.source };
    if let Err(verdict) = onward::find_way::<I, C>(ctx, work) {
        return verdict;
    }
    ctx.set_rewritten(true);
    if apply::<I, C>(ctx, work) { onward::send_out(ctx, work.way) } else { C::DROP }
}

/// Reads the headers of the quoted packet, as far as an error has to quote them, and sets the key.
#[inline(never)]
fn read_quoted<I: WriteIp, C: Context>(ctx: C, work: &mut Work<I::Words>) -> bool {
    let Work { headers, quoted, .. } = work;
    let at = headers.transport + ICMP;
    if !ctx.reach(at + I::HEADER) || I::read(ctx, at, true, quoted).is_none() {
        return false;
    }
    let Some(protocol) = protocol(quoted.protocol) else { return false };
    // What stands in the frame behind the packet is not quoted.
    let end = headers.ip + headers.length;
    if quoted.is_later_fragment() || quoted.transport + 8 > end || !ctx.reach(quoted.transport + 8) {
        return false;
    }
    let (Some(source), Some(destination)) = (ctx.read(quoted.transport), ctx.read(quoted.transport + 2))
    else {
        return false;
    };
    (quoted.source_port, quoted.destination_port) = (u16::from_be(source), u16::from_be(destination));
    work.key =
        Key::new(quoted.destination, quoted.source, quoted.destination_port, quoted.source_port, protocol);
    true
}

/// Rewrites the error, and the packet inside it.
#[inline(never)]
fn apply<I: WriteIp, C: Context>(ctx: C, work: &Work<I::Words>) -> bool {
    let Work { headers: outer, quoted, change, source: own_source, ttl, .. } = work;
    let (source, destination) = (change.destination, change.source);
    let old = ports(quoted.source_port, quoted.destination_port);
    let new = ports(change.destination_port, change.source_port);
    let pseudo = addresses::<I>(quoted, source, destination);
    let changed_ports = checksum::difference(u64::from(old), u64::from(new), 1);
    // Everything that changes below is covered by the error's own checksum; a header's own checksum hides it.
    let mut difference = checksum::both(I::uncovered(pseudo), changed_ports);
    let at = quoted.transport;
    let (checksum_at, optional) = match protocol(quoted.protocol) {
        Some(Protocol::Udp) => (at + 6, true),
        _ => (at + 16, false),
    };
    let has_checksum = protocol(quoted.protocol) != Some(Protocol::Sctp)
        && checksum_at + 2 <= outer.ip + outer.length
        && ctx.reach(checksum_at + 2);
    if has_checksum {
        let Some(before) = ctx.read::<u16>(checksum_at) else { return false };
        if !(optional && before == 0) {
            let mut after = checksum::changed(before, checksum::both(pseudo, changed_ports));
            if optional && after == 0 {
                after = 0xffff;
            }
            difference =
                checksum::both(difference, checksum::difference(u64::from(before), u64::from(after), 1));
            if !ctx.write(checksum_at, after, false) {
                return false;
            }
        }
    }
    let written = ctx.write(at, new, false)
        && I::write(ctx, quoted, source, destination, quoted.ttl, false)
        && ctx.fix_checksum(outer.transport + 2, difference, false, false)
        && (!I::ICMP_COVERS_ADDRESSES
            || ctx.fix_checksum(
                outer.transport + 2,
                addresses::<I>(outer, *own_source, change.destination),
                true,
                false,
            ))
        && I::write(ctx, outer, *own_source, change.destination, *ttl, true);
    if written {
        count(|counters| &mut counters.icmp_translated);
    }
    written
}
