//! The other way round: where a datagram came from, and whom a socket is connected to, is shown as the
//! Service address that the program asked for.

use proxy_common::{Family, PEERS, Translation, map_to_v6, unmap_v4};

use crate::{context::SockAddr, storage};

const PROCEED: i32 = 1;

/// For `recvmsg4` and `getpeername4`.
#[inline(always)]
pub(crate) fn show_frontend4(ctx: &SockAddr) -> i32 {
    let (address, port) = ctx.destination4();
    if let Some((shown, port)) = frontend(ctx, map_to_v6(address), port)
        && let Some(v4) = unmap_v4(shown)
    {
        ctx.set_destination4(v4, port);
    }
    PROCEED
}

/// For `recvmsg6` and `getpeername6`.
#[inline(always)]
pub(crate) fn show_frontend6(ctx: &SockAddr) -> i32 {
    let (address, port) = ctx.destination6();
    if let Some((shown, port)) = frontend(ctx, address, port) {
        ctx.set_destination6(shown, port);
    }
    PROCEED
}

/// The frontend that this endpoint stands for on this socket. Host-order ports.
#[inline(always)]
fn frontend(ctx: &SockAddr, address: [u8; 16], port: u16) -> Option<([u8; 16], u16)> {
    let socket = ctx.socket();
    let kept = storage::translation(socket)?;
    if is_from(kept, &address, port) {
        return Some((kept.frontend_address, kept.frontend_port));
    }
    let peers = storage::peers(socket)?;
    for at in 0..PEERS {
        let kept = peers.translations.get(at)?;
        if is_from(kept, &address, port) {
            return Some((kept.frontend_address, kept.frontend_port));
        }
    }
    None
}

#[inline(always)]
fn is_from(kept: &Translation, address: &[u8; 16], port: u16) -> bool {
    kept.family != Family::None && kept.backend_port == port && same(&kept.backend_address, address)
}

/// Compares two addresses as words; comparing arrays would become a call to a byte loop.
#[inline(always)]
pub(super) fn same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    let ([a, b], [c, d]) = (halves(one), halves(other));
    a == c && b == d
}

/// An address as two words.
#[inline(always)]
pub(super) fn halves(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}
