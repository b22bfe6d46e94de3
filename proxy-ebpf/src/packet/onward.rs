//! A packet of a flow goes on: rewritten, through the stack or straight out of a link.

use proxy_common::Onward;

use super::{
    context::Context,
    notice::{self, Problem},
    rewrite::{self, WriteIp},
    route::{self, Kind, Way},
    tables::PacketIp,
    work::Work,
};
use crate::count::count;

/// Rewrites the packet and sends it on. XDP leaves to TC what it cannot do, the packet as it came.
#[inline(never)]
pub(super) fn send<I: WriteIp, C: Context>(ctx: C, work: &mut Work<I::Words>) -> i32 {
    work.source = work.change.source;
    if let Err(verdict) = find_way::<I, C>(ctx, work) {
        return verdict;
    }
    ctx.set_rewritten(true);
    if rewrite::all::<I, C>(ctx, work) { send_out(ctx, work.way) } else { C::DROP }
}

/// Finds the way on for what the packet becomes, and its time to live then; or the verdict, when it is not sent.
#[inline(always)]
pub(super) fn find_way<I: PacketIp, C: Context>(ctx: C, work: &mut Work<I::Words>) -> Result<(), i32> {
    work.way = Way::STACK;
    work.ttl = work.headers.ttl;
    if work.change.onward == Onward::Stack {
        return Ok(());
    }
    let length = route::largest(ctx, &work.headers);
    let (source, destination) = (&work.source, &work.change.destination);
    let way = route::find::<I, C>(ctx, source, destination, length, work.headers.protocol);
    work.way = way;
    // What is delivered here is not forwarded.
    if way.kind != Kind::Here {
        if work.ttl <= 1 {
            return Err(notice::owe::<C, _>(work, Problem::TimeExceeded, 0));
        }
        work.ttl -= 1;
    }
    match way.kind {
        Kind::Neighbour if ctx.can_send(way.link) => Ok(()),
        Kind::Link | Kind::Here if !C::XDP => Ok(()),
        Kind::TooBig => Err(notice::owe::<C, _>(work, Problem::TooBig, way.mtu)),
        Kind::None if !C::XDP => {
            count(|counters| &mut counters.unroutable);
            Err(C::DROP)
        }
        _ => Err(C::PASS),
    }
}

/// Sends a rewritten packet out.
#[inline(always)]
pub(super) fn send_out<C: Context>(ctx: C, way: Way) -> i32 {
    match way.kind {
        Kind::Neighbour => ctx.send(way.link, route::macs()),
        Kind::Link => ctx.send_to_neighbour(way.link),
        _ => C::PASS,
    }
}
