//! Choosing an endpoint for a client inside the cluster.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use proxy_common::{Frontend, NO_SERVICE_PORT, WhenEmpty, pick};

use crate::{
    affinity,
    context::SockAddr,
    count::count,
    ip::{Backend, Ip},
    maps::SLOTS,
    verdict::Verdict,
};

/// The endpoint for a new connection, with its backend id; or how the connection fails.
#[inline(always)]
pub(crate) fn choose<I: Ip>(
    ctx: &SockAddr,
    frontend: &Frontend,
) -> Result<(u32, Backend<I::Address>), Verdict> {
    if frontend.internal.len == 0 {
        return Err(empty(frontend));
    }
    if frontend.affinity_seconds != 0
        && let Some(found) = affinity::last_used::<I>(ctx, frontend)
    {
        return Ok(found);
    }
    let (id, backend) = random::<I>(frontend)?;
    if frontend.affinity_seconds != 0 {
        affinity::remember::<I>(ctx, frontend, id, backend.generation);
    }
    Ok((id, backend))
}

#[inline(always)]
fn random<I: Ip>(frontend: &Frontend) -> Result<(u32, Backend<I::Address>), Verdict> {
    // SAFETY: the helper takes nothing.
    let slot =
        frontend.internal.base.wrapping_add(pick(unsafe { bpf_get_prandom_u32() }, frontend.internal.len));
    let found = SLOTS.get(slot).and_then(|id| Some((*id, I::backend(*id)?)));
    found.ok_or_else(|| {
        count(|counters| &mut counters.bad_slot);
        Verdict::Refuse
    })
}

/// Only the entry for unknown ports has no service port.
#[inline(always)]
fn empty(frontend: &Frontend) -> Verdict {
    if frontend.when_internal_empty == WhenEmpty::Drop {
        count(|counters| &mut counters.no_local_endpoint);
        return Verdict::TimeOut;
    }
    if frontend.service_port == NO_SERVICE_PORT {
        count(|counters| &mut counters.unknown_port);
    } else {
        count(|counters| &mut counters.no_endpoint);
    }
    Verdict::Refuse
}
