//! A packet of a flow goes on: rewritten, through the stack or straight out of a link.

use proxy_common::Onward;

use super::{
    context::Context,
    headers::Headers,
    notice::{Message, Notice, Problem},
    rewrite,
    route::{self, Kind, Way},
    work::Work,
};
use crate::count::count;

/// Rewrites the packet and sends it on. XDP leaves to TC what it cannot do, the packet as it came.
#[inline(never)]
pub(super) fn send<I: Notice, C: Context>(ctx: C, work: &mut Work<I::Words>) -> i32 {
    work.way = Way::STACK;
    work.ttl = work.headers.ttl;
    if work.change.onward == Onward::Link {
        let Work { headers, change, .. } = work;
        match way::<I, C>(ctx, headers, &change.source, &change.destination) {
            Ok(way) => work.way = way,
            Err(verdict) => return verdict,
        }
        work.ttl = work.headers.ttl.wrapping_sub(1);
    }
    if rewrite::all::<I, C>(ctx, work) { send_out(ctx, work.way) } else { C::DROP }
}

/// The way out for what the packet becomes; or the verdict, when it is not sent.
#[inline(always)]
pub(super) fn way<I: Notice, C: Context>(
    ctx: C,
    headers: &Headers<I::Words>,
    source: &I::Words,
    destination: &I::Words,
) -> Result<Way, i32> {
    if headers.ttl <= 1 {
        return Err(ctx.answer::<I>(headers, Message::of(Problem::TimeExceeded)));
    }
    let length = route::largest(ctx, headers);
    let way = route::find::<I, C>(ctx, source, destination, length, headers.protocol);
    let possible = match way.kind {
        Kind::Neighbour => ctx.can_send(way.link),
        Kind::Link | Kind::Here => !C::XDP,
        Kind::TooBig => {
            return Err(ctx.answer::<I>(headers, Message { problem: Problem::TooBig, mtu: way.mtu }));
        }
        Kind::None if C::XDP => false,
        Kind::None => {
            count(|counters| &mut counters.unroutable);
            return Err(C::DROP);
        }
    };
    if possible { Ok(way) } else { Err(C::PASS) }
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
