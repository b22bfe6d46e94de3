//! A datagram of an unconnected UDP socket. The socket stays with its endpoint while it talks to one
//! frontend, as a connection-tracking entry would have it, and picks again when that endpoint is gone.

use core::arch::asm;

use proxy_common::{Family, Frontend, PEERS, Peers, Protocol, Translation, is_live};

use super::Translated;
use crate::{
    choose::{Client, Side, choose},
    context::SockAddr,
    count::count,
    ip::{Backend, Ip},
    socket::{
        frontend,
        peer::{halves, same},
    },
    storage,
};

/// Where a choice is kept with the socket.
enum Place {
    /// In the socket's first translation.
    First,
    /// In this one of its further translations; in the one that was filled longest ago for [`PEERS`].
    Further(usize),
}

/// The endpoint to send to. Host-order port.
#[inline(always)]
pub(super) fn translate<I: Ip>(ctx: &SockAddr, address: I::Address, port: u16) -> Translated<I::Address> {
    let Some(frontend) = frontend::find::<I>(ctx, address, port, Protocol::Udp) else { return Ok(None) };
    let asked = (I::to_v6(address), port);
    let (mut place, kept) = find(ctx, asked);
    if let Some(kept) = kept {
        if let Some(backend) = still_there::<I>(kept, &frontend) {
            return Ok(Some((backend.address, backend.port)));
        }
        count(|counters| &mut counters.repicked);
        // Of a connected socket that is sent to by address as well, the first place says what it is connected to: by
        // that the agent finds it.
        if matches!(place, Place::First) && ctx.is_connected() {
            place = Place::Further(PEERS);
        }
    }
    let (id, backend) =
        choose::<I>(Client::Namespace(ctx.netns_cookie()), &frontend, Side::internal(&frontend))?;
    match place {
        Place::First => storage::remember::<I>(ctx.socket(), asked, id, &backend),
        Place::Further(at) => keep_further::<I>(ctx, at, asked, id, &backend),
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
            let Some(peers) = storage::peers(ctx.socket()) else { return (Place::Further(PEERS), None) };
            // Most sockets that have further frontends have one.
            let first = peers.translations.first().is_some_and(|kept| is_for(kept, asked));
            let at = if first { 0 } else { position(peers, asked) };
            match peers.translations.get(at).filter(|kept| is_for(kept, asked)) {
                Some(kept) => (Place::Further(at), Some(kept)),
                None => (Place::Further(PEERS), None),
            }
        }
        _ => (Place::First, None),
    }
}

/// Which of the further translations is for this frontend; [`PEERS`] when none is.
///
/// Without a branch: the verifier would follow each way out of a loop through all that comes after.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most PEERS")]
fn position(peers: &Peers, (address, port): ([u8; 16], u16)) -> usize {
    let [high, low] = halves(&address);
    let mut found = PEERS as u64;
    for (at, kept) in (0_u64..).zip(&peers.translations) {
        let [kept_high, kept_low] = halves(&kept.frontend_address);
        let difference = (kept_high ^ high) | (kept_low ^ low) | u64::from(kept.frontend_port ^ port);
        let keep = spread_sign(difference | difference.wrapping_neg());
        // Not `at ^ ((found ^ at) & keep)`: the verifier bounds that less well, and walks five times as far.
        found = (found & keep) | (at & !keep);
    }
    found as usize
}

/// All ones when the highest bit is set, and 0 otherwise; of what it can see through the compiler would make
/// a branch.
#[inline(always)]
fn spread_sign(mut number: u64) -> u64 {
    // SAFETY: an arithmetic shift of a register; it touches nothing else.
    unsafe { asm!("{0} s>>= 63", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

#[inline(always)]
fn keep_further<I: Ip>(
    ctx: &SockAddr,
    at: usize,
    asked: ([u8; 16], u16),
    id: u32,
    backend: &Backend<I::Address>,
) {
    let Some(peers) = storage::make_peers(ctx.socket()) else {
        count(|counters| &mut counters.no_socket_storage);
        return;
    };
    let next = peers.next as usize % PEERS;
    let at = if at < PEERS { at } else { next };
    if at == next {
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
