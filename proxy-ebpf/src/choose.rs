//! Choosing an endpoint for a client.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use proxy_common::{EndpointList, Frontend, NO_SERVICE_PORT, SlotRange, WhenEmpty, pick};

use crate::{
    affinity,
    count::count,
    ip::{Backend, Ip},
    maps::SLOTS,
    verdict::Verdict,
};

/// Who is asking, for session affinity.
#[derive(Clone, Copy)]
pub(crate) enum Client<A> {
    /// A process: the cookie of its network namespace, which is its pod, or the host.
    Namespace(u64),
    /// Whoever sends packets from this address.
    Address(A),
}

/// The endpoints of a frontend that a client may get, by where it is.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    range: SlotRange,
    /// What `range` was made from.
    pub(crate) list: EndpointList,
    when_empty: WhenEmpty,
}

impl Side {
    /// For clients inside the cluster.
    #[inline(always)]
    pub(crate) fn internal(frontend: &Frontend) -> Self {
        let Frontend { internal, internal_list, when_internal_empty, .. } = *frontend;
        Self { range: internal, list: internal_list, when_empty: when_internal_empty }
    }

    /// For traffic from outside.
    #[inline(always)]
    pub(crate) fn external(frontend: &Frontend) -> Self {
        let Frontend { external, external_list, when_external_empty, .. } = *frontend;
        Self { range: external, list: external_list, when_empty: when_external_empty }
    }
}

/// The endpoint for a new connection, with its backend id; or how the connection fails.
#[inline(always)]
pub(crate) fn choose<I: Ip>(
    client: Client<I::Address>,
    frontend: &Frontend,
    side: Side,
) -> Result<(u32, Backend<I::Address>), Verdict> {
    if side.range.len == 0 {
        return Err(empty(frontend, side));
    }
    if frontend.affinity_seconds != 0
        && let Some(found) = affinity::last_used::<I>(client, frontend, side.list)
    {
        return Ok(found);
    }
    let (id, backend) = random::<I>(side.range)?;
    if frontend.affinity_seconds != 0 {
        affinity::remember::<I>(client, frontend, id, backend.generation);
    }
    Ok((id, backend))
}

#[inline(always)]
fn random<I: Ip>(range: SlotRange) -> Result<(u32, Backend<I::Address>), Verdict> {
    // SAFETY: the helper takes nothing.
    let slot = range.base.wrapping_add(pick(unsafe { bpf_get_prandom_u32() }, range.len));
    let found = SLOTS.get(slot).and_then(|id| Some((*id, I::backend(*id)?)));
    found.ok_or_else(|| {
        count(|counters| &mut counters.bad_slot);
        Verdict::Refuse
    })
}

/// Only the entry for unknown ports has no service port.
#[inline(always)]
fn empty(frontend: &Frontend, side: Side) -> Verdict {
    if side.when_empty == WhenEmpty::Drop {
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
