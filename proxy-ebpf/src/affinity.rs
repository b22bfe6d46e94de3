//! Session affinity ClientIP. On the socket path the client is the network namespace: a pod, or the host; on the packet
//! path it is the address that packets come from.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use proxy_common::{Affinity, EndpointList, Frontend, is_live};

use crate::{
    choose::Client,
    count::count,
    ip::{Backend, Ip},
};

const NANOSECONDS: u64 = 1_000_000_000;

/// The backend that this client used last, if the entry still counts; using it makes it young again.
#[inline(always)]
pub(crate) fn last_used<I: Ip>(
    client: Client<I::Address>,
    frontend: &Frontend,
    list: EndpointList,
) -> Option<(u32, Backend<I::Address>)> {
    let entry = I::affinity(client, frontend.service_port)?;
    // SAFETY: a live map value; it is copied at once, and what is read is checked against the backend.
    let Affinity { last_used, backend: id, generation } = unsafe { *entry };
    let now = now();
    if now.saturating_sub(last_used) >= u64::from(frontend.affinity_seconds) * NANOSECONDS {
        return None;
    }
    let backend = I::backend(id)?;
    // A choice made while the backend was being taken back is remembered with the generation of after.
    let counts = backend.generation == generation
        && is_live(generation)
        && backend.service_port == frontend.service_port
        && backend.lists & list as u8 != 0;
    if !counts {
        return None;
    }
    // SAFETY: as above; an aligned word of it.
    unsafe { (*entry).last_used = now };
    count(|counters| &mut counters.affinity_hit);
    Some((id, backend))
}

/// Remembers that this client was sent to the backend.
#[inline(always)]
pub(crate) fn remember<I: Ip>(
    client: Client<I::Address>,
    frontend: &Frontend,
    backend: u32,
    generation: u32,
) {
    let affinity = Affinity { last_used: now(), backend, generation };
    I::set_affinity(client, frontend.service_port, &affinity);
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}
