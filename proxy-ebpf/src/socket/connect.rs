//! connect(): the one moment a connection pays for being to a Service.

use super::Translated;
use crate::{
    choose::{Client, Side, choose},
    context::SockAddr,
    count::count,
    ip::Ip,
    socket::frontend,
    storage,
};

/// The endpoint to connect to. Host-order port.
#[inline(always)]
pub(super) fn translate<I: Ip>(ctx: &SockAddr, address: I::Address, port: u16) -> Translated<I::Address> {
    let Some(protocol) = ctx.protocol() else { return Ok(None) };
    let Some(frontend) = frontend::find::<I>(ctx, address, port, protocol) else {
        storage::forget(ctx.socket());
        return Ok(None);
    };
    let (id, backend) =
        choose::<I>(Client::Namespace(ctx.netns_cookie()), &frontend, Side::internal(&frontend))?;
    storage::remember::<I>(ctx.socket(), (I::to_v6(address), port), id, &backend);
    count(|counters| &mut counters.translated);
    Ok(Some((backend.address, backend.port)))
}
