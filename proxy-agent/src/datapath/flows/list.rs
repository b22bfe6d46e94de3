use std::{net::SocketAddr, ops::ControlFlow, time::Duration};

use proxy_common::{Direction, Hook};
use serde::Serialize;

use super::{
    Flows, Lifetimes, Tables,
    entry::{Entry, Key},
    lifetimes::{State, idle},
    nanoseconds,
    table::Table,
};
use crate::datapath::{Error, tables::protocol_name};

/// A flow, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    /// Where it comes from.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub frontend: SocketAddr,
    /// Where that ends up.
    pub endpoint: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// What the endpoint takes for the client; `None` when that is the client itself.
    pub masqueraded_as: Option<SocketAddr>,
    /// `half-open`, `established`, `closing` or `closed`.
    pub state: &'static str,
    /// Since the last packet of either direction.
    pub idle_seconds: u64,
    /// Until the agent lets go of it if no packet comes; 0 when that is due.
    pub expires_in_seconds: u64,
    /// Where the client's packets are rewritten.
    pub forward_hook: &'static str,
    /// Where the endpoint's packets are rewritten.
    pub reply_hook: &'static str,
    /// Key in the map `SERVICES`.
    pub service_port: u32,
}

impl Flows {
    /// Hands each flow to `show`, until that ends it; with the memory of one batch. `now` is of the monotonic
    /// clock. A flow that is confirmed meanwhile may be met twice.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn list(
        &self,
        lifetimes: &Lifetimes,
        now: Duration,
        mut show: impl FnMut(FlowView) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let now = nanoseconds(now);
        if family(&self.v4, lifetimes, now, &mut show)?.is_continue() {
            let _ended = family(&self.v6, lifetimes, now, &mut show)?;
        }
        Ok(())
    }
}

/// Whether to go on.
fn family<K: Key>(
    tables: &Tables<K>,
    lifetimes: &Lifetimes,
    now: u64,
    show: &mut impl FnMut(FlowView) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    for table in tables.all() {
        let mut outcome = Ok(ControlFlow::Continue(()));
        table.walk(|batch| {
            for (key, flow) in batch.entries().flatten() {
                outcome = view(table, &key.entry(&flow), lifetimes, now)
                    .map(|view| view.map_or(ControlFlow::Continue(()), &mut *show));
                if !matches!(outcome, Ok(ControlFlow::Continue(()))) {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if outcome?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The flow of an entry; `None` for a reply entry, unless it is all that is left of the flow.
fn view<K: Key>(
    table: &Table<K>,
    entry: &Entry<K>,
    lifetimes: &Lifetimes,
    now: u64,
) -> Result<Option<FlowView>, Error> {
    let other = table.other(entry)?;
    let is_forward = entry.direction == Direction::Forward;
    if !is_forward && other.is_some() {
        return Ok(None);
    }
    let protocol = entry.key.protocol();
    let other = other.map(|other| other.side);
    let (forward, reply) = if is_forward { (entry.key, entry.other) } else { (entry.other, entry.key) };
    let (forward_hook, reply_hook) =
        if is_forward { (entry.hook, entry.peer_hook) } else { (entry.peer_hook, entry.hook) };
    let seen = other.map_or(0, |other| other.seen);
    let state = State::of(table.is_confirmed && other.is_some(), entry.side.seen, seen);
    let left = lifetimes.left(protocol, table.is_confirmed, entry.side, other, now);
    Ok(Some(FlowView {
        client: forward.source(),
        frontend: forward.destination(),
        endpoint: reply.source(),
        protocol: protocol_name(protocol),
        masqueraded_as: Some(reply.destination()).filter(|source| *source != forward.source()),
        state: state.name(),
        idle_seconds: idle(entry.side, other, now).as_secs(),
        expires_in_seconds: left.unwrap_or_default().as_secs(),
        forward_hook: hook_name(forward_hook),
        reply_hook: hook_name(reply_hook),
        service_port: entry.service_port,
    }))
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::None => "none",
        Hook::UplinkIngress => "uplink-ingress",
        Hook::UplinkEgress => "uplink-egress",
        Hook::WorkloadIngress => "workload-ingress",
        Hook::WorkloadEgress => "workload-egress",
    }
}
