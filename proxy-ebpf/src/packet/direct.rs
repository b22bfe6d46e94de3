//! Packets straight to an endpoint, whose answers would be taken for those of a flow.

use proxy_common::{Hook, NO_BACKEND, NO_SERVICE_PORT, Onward};

use super::{context::Context, flow, headers::Headers, open::Decision, tables::PacketIp, work::Work};
use crate::maps::LINKS;

/// A packet to no frontend. Where the client has a flow to the same endpoint from the same port, the answers to both would
/// look the same: the packet then opens a flow of its own, to where it goes anyway, for the sake of another source port.
#[inline(never)]
pub(super) fn keep_apart<I: PacketIp, C: Context>(ctx: C, hook: Hook, work: &mut Work<I::Words>) -> Decision {
    let Some(peer_hook) = flow::hook_of_replies::<I>(work) else { return Decision::Pass };
    if was_with_xdp(ctx, hook, &work.headers) {
        return Decision::Pass;
    }
    let (key, flow) = (&work.key, &mut work.flow);
    flow.source = key.source;
    flow.destination = key.destination;
    flow.destination_port = key.destination_port;
    flow.backend = NO_BACKEND;
    flow.generation = 0;
    flow.service_port = NO_SERVICE_PORT;
    flow.peer_hook = peer_hook;
    flow.onward = Onward::Stack;
    flow.peer_onward = Onward::Stack;
    Decision::Opened
}

/// Whether a packet has been through the same code in the driver, which takes every whole one: what looks like a packet to an
/// endpoint's own address is then what was made of it.
#[inline(always)]
pub(super) fn was_with_xdp<A: Copy, C: Context>(ctx: C, hook: Hook, headers: &Headers<A>) -> bool {
    if C::XDP || hook != Hook::UplinkIngress || headers.is_fragment() {
        return false;
    }
    // SAFETY: one byte of a live map value.
    let was = LINKS.get_ptr(ctx.link()).is_some_and(|link| unsafe { (*link).xdp_first } != 0);
    if was {
        ctx.set_rewritten(true);
    }
    was
}
