//! The socket path: what happens at connect(), at an unconnected datagram, and when a program asks whom it
//! talks to.

mod connect;
mod datagram;
mod frontend;
mod peer;
mod stale;

use proxy_common::{map_to_v6, unmap_v4};

pub(crate) use peer::{show_frontend4, show_frontend6};
pub(crate) use stale::report_if_stale;

use crate::{
    context::SockAddr,
    ip::{V4, V6},
    verdict::Verdict,
};

/// An endpoint's address in network order and port in host order; `None` for a destination that is not
/// ours.
type Translated<A> = Result<Option<(A, u16)>, Verdict>;

pub(crate) fn connect4(ctx: &SockAddr) -> Verdict {
    let (address, port) = ctx.destination4();
    rewrite4(ctx, connect::translate::<V4>(ctx, address, port))
}

pub(crate) fn connect6(ctx: &SockAddr) -> Verdict {
    let (address, port) = ctx.destination6();
    match unmap_v4(address) {
        Some(v4) => rewrite_mapped(ctx, connect::translate::<V4>(ctx, v4, port)),
        None => rewrite6(ctx, connect::translate::<V6>(ctx, address, port)),
    }
}

pub(crate) fn sendmsg4(ctx: &SockAddr) -> Verdict {
    let (address, port) = ctx.destination4();
    rewrite4(ctx, datagram::translate::<V4>(ctx, address, port))
}

/// The kernel takes IPv4-mapped destinations to the IPv4 hook, and never to this one.
pub(crate) fn sendmsg6(ctx: &SockAddr) -> Verdict {
    let (address, port) = ctx.destination6();
    rewrite6(ctx, datagram::translate::<V6>(ctx, address, port))
}

#[inline(always)]
fn rewrite4(ctx: &SockAddr, translated: Translated<[u8; 4]>) -> Verdict {
    conclude(translated, |(address, port)| ctx.set_destination4(address, port))
}

#[inline(always)]
fn rewrite6(ctx: &SockAddr, translated: Translated<[u8; 16]>) -> Verdict {
    conclude(translated, |(address, port)| ctx.set_destination6(address, port))
}

/// An IPv6 socket that speaks IPv4 (RFC 4291 section 2.5.5.2).
#[inline(always)]
fn rewrite_mapped(ctx: &SockAddr, translated: Translated<[u8; 4]>) -> Verdict {
    conclude(translated, |(address, port)| ctx.set_destination6(map_to_v6(address), port))
}

#[inline(always)]
fn conclude<A>(translated: Translated<A>, rewrite: impl FnOnce((A, u16))) -> Verdict {
    match translated {
        Ok(Some(endpoint)) => rewrite(endpoint),
        Ok(None) => {}
        Err(failure) => return failure,
    }
    Verdict::Proceed
}
