//! A datagram of an unconnected UDP socket. The socket stays with its endpoint while it talks to one
//! frontend, as a connection-tracking entry would have it, and picks again when that endpoint is gone.

use proxy_common::{Family, Frontend, PEERS, Protocol, Translation, is_live};

use super::Translated;
use crate::{
    choose::choose,
    context::SockAddr,
    count::count,
    ip::{Backend, Ip},
    lookup,
    socket::peer::same,
    storage,
};

/// Where a choice is kept with the socket.
enum Place {
    /// In the socket's first translation.
    First,
    /// In this one of its further translations.
    Further(usize),
    /// In a further translation that is free, or that was filled longest ago.
    AnyFurther,
}

/// The endpoint to send to. Host-order port.
#[inline(always)]
pub(super) fn translate<I: Ip>(ctx: &SockAddr, address: I::Address, port: u16) -> Translated<I::Address> {
    let Some(frontend) = lookup::frontend::<I>(address, port, Protocol::Udp) else { return Ok(None) };
    let asked = (I::to_v6(address), port);
    let (place, kept) = find(ctx, asked);
    if let Some(kept) = kept {
        if let Some(backend) = still_there::<I>(kept, &frontend) {
            return Ok(Some((backend.address, backend.port)));
        }
        count(|counters| &mut counters.repicked);
    }
    let (id, backend) = choose::<I>(ctx, &frontend)?;
    match place {
        Place::First => storage::remember::<I>(ctx.socket(), asked, id, &backend),
        Place::Further(at) => keep_further::<I>(ctx, |_next| at, asked, id, &backend),
        Place::AnyFurther => keep_further::<I>(ctx, |next| next as usize, asked, id, &backend),
    }
    count(|counters| &mut counters.translated);
    Ok(Some((backend.address, backend.port)))
}

/// What the socket was translated to when it last talked to this frontend, and where that is kept.
#[inline(always)]
fn find<'a>(ctx: &SockAddr, asked: ([u8; 16], u16)) -> (Place, Option<&'a Translation>) {
    match storage::translation(ctx.socket()) {
        Some(kept) if is_for(kept, asked) => (Place::First, Some(kept)),
        Some(kept) if kept.family != Family::None => {
            let Some(peers) = storage::peers(ctx.socket()) else { return (Place::AnyFurther, None) };
            for at in 0..PEERS {
                if let Some(kept) = peers.translations.get(at).filter(|kept| is_for(kept, asked)) {
                    return (Place::Further(at), Some(kept));
                }
            }
            (Place::AnyFurther, None)
        }
        _ => (Place::First, None),
    }
}

#[inline(always)]
fn keep_further<I: Ip>(
    ctx: &SockAddr,
    place: impl FnOnce(u32) -> usize,
    asked: ([u8; 16], u16),
    id: u32,
    backend: &Backend<I::Address>,
) {
    let Some(peers) = storage::make_peers(ctx.socket()) else {
        count(|counters| &mut counters.no_socket_storage);
        return;
    };
    let at = place(peers.next) % PEERS;
    if at == peers.next as usize % PEERS {
        peers.next = peers.next.wrapping_add(1);
    }
    if let Some(kept) = peers.translations.get_mut(at) {
        storage::write::<I>(kept, asked, id, backend);
    }
}

#[inline(always)]
fn is_for(kept: &Translation, (address, port): ([u8; 16], u16)) -> bool {
    kept.family != Family::None && kept.frontend_port == port && same(&kept.frontend_address, &address)
}

/// The endpoint that was chosen before, if its backend id still means it. A choice made while the backend was
/// being taken back was kept with the generation of after: it is not there either.
#[inline(always)]
fn still_there<I: Ip>(kept: &Translation, frontend: &Frontend) -> Option<Backend<I::Address>> {
    let backend = I::backend(kept.backend)?;
    let still_there = backend.generation == kept.generation
        && is_live(kept.generation)
        && backend.service_port == frontend.service_port;
    still_there.then_some(backend)
}
