//! Opening a flow: a client's first packet to a frontend.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use proxy_common::{
    Direction, EndpointList, FRONTEND_IS_LOCAL, FRONTEND_SOURCE_RANGES, FrontendKind, Hook, NO_SERVICE_PORT,
    Onward, Protocol, pick,
};

use super::{
    clock,
    context::Context,
    direct,
    flow::{self, Change},
    headers::Headers,
    route::{self, Kind},
    tables::{Flow, Key, PacketIp, Table},
    work::Work,
};
use crate::{
    choose::{Client, Side, choose},
    count::count,
    lookup,
    maps::{SOURCE_PORT_COUNT, SOURCE_PORT_FIRST},
    verdict::Verdict,
};

/// So many source ports are tried.
const TRIES: u32 = 16;
/// So many of them at last whether or not a half-open flow has them.
const LAST_TRIES: u32 = 4;

/// Where the endpoint is, seen from this node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind an uplink.
    Remote,
    /// A pod of this node.
    Pod,
    /// The host itself.
    Host,
}

/// What was decided for a packet that belongs to no flow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Decision {
    /// It has opened one, and what it becomes is set.
    Opened,
    /// It is nothing of ours.
    Pass,
    /// It is dropped.
    Drop,
    /// Its sender is told that nobody serves it.
    Refuse,
}

/// Opens a flow if the packet is a client's first to a frontend.
#[inline(never)]
pub(super) fn ask<I: PacketIp, C: Context>(ctx: C, hook: Hook, work: &mut Work<I::Words>) -> Decision {
    if !work.headers.opens || work.headers.is_later_fragment() || !opens_flows(ctx, hook) {
        return Decision::Pass;
    }
    // The stack drops what claims to come from there.
    if !I::is_unicast(work.key.source) {
        return Decision::Pass;
    }
    let decision = match choose_endpoint::<I>(hook, work) {
        Decision::Opened if !find_way::<I, C>(ctx, hook, work) => Decision::Drop,
        Decision::Pass => direct::keep_apart::<I, C>(ctx, hook, work),
        decision => decision,
    };
    match decision {
        Decision::Opened if !establish::<I>(hook, work) => Decision::Drop,
        decision => decision,
    }
}

/// Chooses an endpoint, which then stands in `work.flow`.
#[inline(never)]
fn choose_endpoint<I: PacketIp>(hook: Hook, work: &mut Work<I::Words>) -> Decision {
    let key = &work.key;
    let frontend = lookup::frontend::<I>(I::bytes(key.destination), key.destination_port, key.protocol);
    let Some(frontend) = frontend else { return Decision::Pass };
    if frontend.flags & FRONTEND_SOURCE_RANGES != 0 && !I::in_source_range(frontend.service_port, key.source)
    {
        count(|counters| &mut counters.source_range_denied);
        return Decision::Drop;
    }
    // Pods of other nodes get what those of this one do (KUBE-PROXY.md 1.4, step 5).
    let side = if hook == Hook::UplinkIngress
        && frontend.kind != FrontendKind::ClusterIp
        && !(frontend.external_list == EndpointList::Local && I::is_in_cluster(key.source))
    {
        Side::external(&frontend)
    } else {
        Side::internal(&frontend)
    };
    let (id, backend) = match choose::<I>(Client::Address(I::bytes(key.source)), &frontend, side) {
        Ok(chosen) => chosen,
        Err(Verdict::Refuse) => return Decision::Refuse,
        Err(_) => return Decision::Drop,
    };
    work.to_own_address = frontend.flags & FRONTEND_IS_LOCAL != 0;
    let flow = &mut work.flow;
    flow.destination = I::words(backend.address);
    flow.destination_port = backend.port;
    flow.backend = id;
    flow.generation = backend.generation;
    flow.service_port = frontend.service_port;
    Decision::Opened
}

/// Whether a packet of another protocol is to be refused: one to a cluster IP (KUBE-PROXY.md 1.4).
#[inline(never)]
pub(super) fn is_refused<I: PacketIp, C: Context>(ctx: C, hook: Hook, headers: &Headers<I::Words>) -> bool {
    if !headers.echo_request || headers.is_fragment() || !opens_flows(ctx, hook) {
        return false;
    }
    let frontend = lookup::frontend::<I>(I::bytes(headers.destination), 0, Protocol::Any);
    let refused = frontend.is_some_and(|frontend| frontend.service_port == NO_SERVICE_PORT);
    if refused {
        count(|counters| &mut counters.unknown_port);
    }
    refused
}

/// Whether packets of clients come by here.
#[inline(always)]
fn opens_flows<C: Context>(ctx: C, hook: Hook) -> bool {
    match hook {
        Hook::UplinkIngress | Hook::WorkloadIngress => true,
        Hook::UplinkEgress => ctx.made_here(),
        Hook::WorkloadEgress | Hook::None => false,
    }
}

/// Finds the way to the endpoint that stands in `work.flow`, and back. False when there is none.
#[inline(never)]
fn find_way<I: PacketIp, C: Context>(ctx: C, hook: Hook, work: &mut Work<I::Words>) -> bool {
    let (key, flow) = (&work.key, &mut work.flow);
    let way = route::find::<I, C>(ctx, &key.source, &flow.destination, 0, key.protocol as u8);
    let place = match way.kind {
        Kind::Here => Place::Host,
        _ if route::is_uplink(way.link) => Place::Remote,
        _ => Place::Pod,
    };
    // The stack takes nothing from a link that bears the node's own address as its source.
    let to_itself = hook == Hook::UplinkEgress && place == Place::Host;
    let routable = !matches!(way.kind, Kind::TooBig | Kind::None) && !to_itself;
    let Some(link) = route::link(if place == Place::Host { 0 } else { way.link }).filter(|_| routable) else {
        count(|counters| &mut counters.unroutable);
        return false;
    };
    let hairpin = I::equal(flow.destination, key.source);
    let masquerade = hairpin || hook == Hook::UplinkIngress && place == Place::Remote;
    flow.source = if masquerade { I::address_of(link) } else { key.source };
    if I::is_zero(flow.source) {
        count(|counters| &mut counters.unroutable);
        return false;
    }
    work.may_keep_port &= !masquerade;
    let straight = masquerade || hook == Hook::WorkloadIngress && work.to_own_address;
    flow.peer_hook = match (place, hook) {
        (Place::Remote, _) => Hook::UplinkIngress,
        (_, Hook::UplinkIngress) => Hook::UplinkEgress,
        (Place::Host, Hook::WorkloadIngress) => Hook::WorkloadEgress,
        _ => Hook::WorkloadIngress,
    };
    flow.onward = if straight || hook == Hook::UplinkEgress { Onward::Link } else { Onward::Stack };
    flow.peer_onward = if straight { Onward::Link } else { Onward::Stack };
    true
}

/// Makes the entries of the flow that stands in `work.flow`. False when the packet is lost.
#[inline(never)]
fn establish<I: PacketIp>(hook: Hook, work: &mut Work<I::Words>) -> bool {
    let (key, flow) = (&work.key, &mut work.flow);
    flow.last_seen = clock::now();
    flow.source_port = key.source_port;
    flow.hook = hook;
    flow.direction = Direction::Forward;
    flow.seen = work.headers.shows;
    flow.reserved = [0; 2];
    flow.seal = I::seal(key);
    if !take_source_port::<I>(work) {
        count(|counters| &mut counters.source_ports_exhausted);
        return false;
    }
    flow::mark::<I>(work.key.destination, work.flow.destination);
    if I::put(Table::New, &work.key, &work.flow).is_err() {
        // Another CPU was first with a packet of the same flow: its choice is kept.
        if !flow::look_up::<I>(&work.key, &mut work.change, hook) {
            I::remove(Table::New, &work.other_key);
            return false;
        }
        if !is_same::<I>(&work.change, &work.flow) {
            I::remove(Table::New, &work.other_key);
        }
        return true;
    }
    count(|counters| &mut counters.flows_opened);
    let Flow { source, destination, source_port, destination_port, onward, .. } = work.flow;
    work.change = Change { source, destination, source_port, destination_port, onward };
    true
}

/// Finds a source port with which the endpoint's replies are told apart from those of every other flow, and puts the
/// reply entry. The client's own port is tried first where it may stay.
#[inline(never)]
fn take_source_port<I: PacketIp>(work: &mut Work<I::Words>) -> bool {
    work.other_key = work.flow.other_key(work.key.protocol);
    work.other = work.flow.other(&work.key, 0);
    if work.may_keep_port {
        if put_reply::<I>(work) {
            return true;
        }
        // What is left of a half-evicted flow between the same two, or another CPU's entry of this one.
        let taken = flow::look_up::<I>(&work.other_key, &mut work.change, work.flow.peer_hook);
        if taken && leads_back::<I>(&work.change, &work.key) {
            return true;
        }
    }
    let (first, ports) = (SOURCE_PORT_FIRST.load(), SOURCE_PORT_COUNT.load());
    for attempt in 0..TRIES {
        // SAFETY: the helper takes nothing.
        let random = unsafe { bpf_get_prandom_u32() };
        let port = (first + pick(random, ports)) as u16;
        work.flow.source_port = port;
        work.other_key.destination_port = port;
        if attempt >= TRIES - LAST_TRIES {
            // Half-open flows make room for one another here as they do in their map: a flood of them must not keep
            // clients away.
            I::remove(Table::New, &work.other_key);
        }
        if put_reply::<I>(work) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn put_reply<I: PacketIp>(work: &mut Work<I::Words>) -> bool {
    work.other.seal = I::seal(&work.other_key);
    I::find(Table::Confirmed, &work.other_key).is_none()
        && I::put(Table::New, &work.other_key, &work.other).is_ok()
}

/// Whether what a reply becomes is a reply to packets of this key.
#[inline(always)]
fn leads_back<I: PacketIp>(change: &Change<I::Words>, key: &Key<I::Words>) -> bool {
    change.source_port == key.destination_port
        && change.destination_port == key.source_port
        && I::equal(change.source, key.destination)
        && I::equal(change.destination, key.source)
}

#[inline(always)]
fn is_same<I: PacketIp>(change: &Change<I::Words>, flow: &Flow<I::Words>) -> bool {
    change.source_port == flow.source_port
        && change.destination_port == flow.destination_port
        && I::equal(change.source, flow.source)
        && I::equal(change.destination, flow.destination)
}
