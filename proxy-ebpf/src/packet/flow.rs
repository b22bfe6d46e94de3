//! Following a flow: finding its entry, keeping its state, confirming it.

use core::ptr::read_volatile;

use proxy_common::{Direction, Hook, NO_BACKEND, Onward, Protocol, Role, is_live, seen};

use super::{
    clock::{self, SECOND},
    context::Context,
    direct,
    headers::Headers,
    tables::{Flow, Key, PacketIp, Table},
    work::Work,
};
use crate::{count::count, maps::FLOW_FILTER};

const EEXIST: i32 = -17;

/// What the packets of one direction of a flow become. Ports in host order.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Change<A> {
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) onward: Onward,
}

/// What was found for a packet.
#[repr(u8)]
pub(super) enum Step {
    /// It belongs to a flow, and is to be changed here.
    Found,
    /// It belongs to a flow whose packets are changed elsewhere.
    NotHere,
    /// It belongs to no flow.
    None,
}

/// False when the packet surely belongs to no flow.
#[inline(always)]
pub(super) fn may_have_one<I: PacketIp>(headers: &Headers<I::Words>) -> bool {
    is_set(I::flow_filter_position(headers.destination, Role::Frontend))
        || is_set(I::flow_filter_position(headers.source, Role::Endpoint))
}

/// From now on packets between these two may have a flow.
#[inline(always)]
pub(super) fn mark<I: PacketIp>(frontend: I::Words, endpoint: I::Words) {
    set(I::flow_filter_position(frontend, Role::Frontend));
    set(I::flow_filter_position(endpoint, Role::Endpoint));
}

#[inline(always)]
fn is_set(position: u32) -> bool {
    FLOW_FILTER.get(position).is_some_and(|byte| *byte != 0)
}

/// Not written again when it is set: other CPUs read the same memory with every packet.
#[inline(always)]
fn set(position: u32) {
    if let Some(byte) = FLOW_FILTER.get_ptr_mut(position) {
        // SAFETY: a live map value of one byte.
        unsafe {
            if read_volatile(byte) == 0 {
                *byte = 1;
            }
        }
    }
}

/// Finds the flow of the packet with this key, takes note of the packet, and sets what it becomes.
#[inline(never)]
pub(super) fn follow<I: PacketIp, C: Context>(ctx: C, work: &mut Work<I::Words>, hook: Hook) -> Step {
    if let Some(entry) = I::find(Table::Confirmed, &work.key) {
        let known = load(entry, &mut work.change);
        if known.seal == I::seal(&work.key) {
            if known.hook != hook || known.is_direct() && direct::was_with_xdp(ctx, hook, &work.headers) {
                return Step::NotHere;
            }
            if known.direction == Direction::Forward && is_over::<I>(work, &known) {
                return Step::None;
            }
            touch(entry, &known, work.headers.shows);
            return Step::Found;
        }
    }
    follow_new::<I, C>(ctx, work, hook)
}

/// The same for a flow that is not confirmed.
#[inline(always)]
fn follow_new<I: PacketIp, C: Context>(ctx: C, work: &mut Work<I::Words>, hook: Hook) -> Step {
    let Some(entry) = I::find(Table::New, &work.key) else { return Step::None };
    let known = load(entry, &mut work.change);
    if known.seal != I::seal(&work.key) {
        return Step::None;
    }
    if known.hook != hook || known.is_direct() && direct::was_with_xdp(ctx, hook, &work.headers) {
        return Step::NotHere;
    }
    if known.direction == Direction::Reply && is_anothers(known.seen, &work.headers) {
        // SAFETY: one byte of a live map value.
        unsafe { (*entry).seen = known.seen | seen::ANOTHERS };
        return Step::NotHere;
    }
    touch(entry, &known, work.headers.shows);
    if known.direction == Direction::Forward && !go_on::<I>(work, entry, &known) {
        return Step::None;
    }
    Step::Found
}

/// Whether an endpoint's packet is none of this half-open flow. The first answer to a SYN is another, or a reset: what comes
/// instead belongs to a connection that the client has made to the endpoint's own address, from the same port.
#[inline(always)]
fn is_anothers<A>(seen: u8, headers: &Headers<A>) -> bool {
    headers.goes_on && seen & (seen::PACKET | seen::MADE_AGAIN) == 0
}

/// What is read of an entry besides what its packets become.
#[derive(Clone, Copy)]
pub(super) struct Known {
    last_seen: u64,
    seal: u64,
    backend: u32,
    generation: u32,
    pub(super) hook: Hook,
    direction: Direction,
    seen: u8,
}

impl Known {
    /// Whether these are a client's packets to an endpoint's own address.
    #[inline(always)]
    fn is_direct(&self) -> bool {
        self.backend == NO_BACKEND && self.direction == Direction::Forward
    }
}

/// Reads an entry. Its memory may become another entry's meanwhile; the seal, read last, tells.
#[inline(always)]
fn load<A: Copy>(entry: *const Flow<A>, change: &mut Change<A>) -> Known {
    // SAFETY: a live map value.
    unsafe {
        change.source = read_volatile(&raw const (*entry).source);
        change.destination = read_volatile(&raw const (*entry).destination);
        change.source_port = read_volatile(&raw const (*entry).source_port);
        change.destination_port = read_volatile(&raw const (*entry).destination_port);
        change.onward = read_volatile(&raw const (*entry).onward);
        Known {
            last_seen: read_volatile(&raw const (*entry).last_seen),
            backend: read_volatile(&raw const (*entry).backend),
            generation: read_volatile(&raw const (*entry).generation),
            hook: read_volatile(&raw const (*entry).hook),
            direction: read_volatile(&raw const (*entry).direction),
            seen: read_volatile(&raw const (*entry).seen),
            seal: read_volatile(&raw const (*entry).seal),
        }
    }
}

/// What the packets of this key become at this hook, without taking note of one.
#[inline(always)]
pub(super) fn look_up<I: PacketIp>(key: &Key<I::Words>, change: &mut Change<I::Words>, hook: Hook) -> bool {
    let Some(entry) = I::find(Table::Confirmed, key).or_else(|| I::find(Table::New, key)) else {
        return false;
    };
    let known = load(entry, change);
    known.seal == I::seal(key) && known.hook == hook
}

/// Where replies to packets of this key are rewritten, if a flow takes them for its own. Sets the replies' key.
#[inline(always)]
pub(super) fn hook_of_replies<I: PacketIp>(work: &mut Work<I::Words>) -> Option<Hook> {
    if !is_set(I::flow_filter_position(work.key.destination, Role::Endpoint)) {
        return None;
    }
    let Key { source, destination, source_port, destination_port, protocol, .. } = work.key;
    work.other_key = Key::new(destination, source, destination_port, source_port, protocol);
    let entry =
        I::find(Table::Confirmed, &work.other_key).or_else(|| I::find(Table::New, &work.other_key))?;
    let known = load(entry, &mut work.change);
    (known.seal == I::seal(&work.other_key) && known.direction == Direction::Reply).then_some(known.hook)
}

/// Keeps what the packet shows. The entry is written only when that changes it: an established flow does not move its
/// memory from one CPU to another with each packet.
#[inline(always)]
fn touch<A: Copy>(entry: *mut Flow<A>, known: &Known, shows: u8) {
    let now = clock::now();
    // A reset that the other side did not believe is followed by other packets.
    let seen = known.seen & !seen::RST | shows;
    // SAFETY: a live map value, written field by field.
    unsafe {
        if now.wrapping_sub(known.last_seen) > SECOND {
            (*entry).last_seen = now;
        }
        if seen != known.seen {
            (*entry).seen = seen;
        }
    }
}

/// The key of the other direction of the flow whose packets become this.
#[inline(always)]
fn set_other_key<I: PacketIp>(work: &mut Work<I::Words>) {
    let Change { source, destination, source_port, destination_port, .. } = work.change;
    work.other_key = Key::new(destination, source, destination_port, source_port, work.key.protocol);
}

/// Whether the confirmed flow of a client's packet is over, and gone now: its endpoint is (UDP), or it was closed and
/// the client begins again.
#[inline(always)]
fn is_over<I: PacketIp>(work: &mut Work<I::Words>, known: &Known) -> bool {
    if work.key.protocol == Protocol::Udp && has_lost_its_endpoint::<I>(known) {
        count(|counters| &mut counters.repicked);
        end::<I>(work, Table::Confirmed);
        return true;
    }
    if work.headers.begins && is_closed::<I>(work, known.seen) {
        end::<I>(work, Table::Confirmed);
        return true;
    }
    false
}

#[inline(always)]
fn has_lost_its_endpoint<I: PacketIp>(known: &Known) -> bool {
    known.backend != NO_BACKEND
        && (!is_live(known.generation)
            || I::backend(known.backend).is_none_or(|backend| backend.generation != known.generation))
}

#[inline(always)]
fn is_closed<I: PacketIp>(work: &mut Work<I::Words>, asked: u8) -> bool {
    set_other_key::<I>(work);
    let replied = I::find(Table::Confirmed, &work.other_key).map_or(seen::RST, |entry| {
        // SAFETY: one byte of a live map value.
        unsafe { (*entry).seen }
    });
    (asked | replied) & seen::RST != 0 || asked & replied & seen::FIN != 0
}

/// Removes both entries of a client's flow. The reply entry may be another flow's, after this one's was evicted.
#[inline(never)]
fn end<I: PacketIp>(work: &mut Work<I::Words>, table: Table) {
    set_other_key::<I>(work);
    I::remove(table, &work.key);
    let reply = I::find(table, &work.other_key);
    // SAFETY: a live map value.
    if reply.is_some_and(|reply| unsafe { leads_to::<I>(reply, &work.key) }) {
        I::remove(table, &work.other_key);
    }
}

/// A client's packet on a flow that is not confirmed. False when the flow is over, and gone now.
#[inline(never)]
fn go_on<I: PacketIp>(work: &mut Work<I::Words>, entry: *const Flow<I::Words>, known: &Known) -> bool {
    if work.key.protocol == Protocol::Udp && has_lost_its_endpoint::<I>(known) {
        count(|counters| &mut counters.repicked);
        end::<I>(work, Table::New);
        return false;
    }
    set_other_key::<I>(work);
    // SAFETY: a live map value, whose seal was right.
    work.flow = unsafe { read_volatile(entry) };
    work.other = work.flow.other(&work.key, I::seal(&work.other_key));
    let Some(reply) = I::find(Table::New, &work.other_key) else {
        if let Some(reply) = I::find(Table::Confirmed, &work.other_key) {
            // SAFETY: a live map value.
            if unsafe { leads_to::<I>(reply, &work.key) } {
                // Another CPU has just confirmed it.
                return true;
            }
            // Another flow has its key for good: this one has to begin anew.
            I::remove(Table::New, &work.key);
            return false;
        }
        // The kernel evicts single entries. Whether this one had an answer is not known any more.
        work.other.seen = if work.headers.begins { 0 } else { seen::MADE_AGAIN };
        let _taken = I::put(Table::New, &work.other_key, &work.other);
        return true;
    };
    // SAFETY: a live map value.
    let (replied, is_ours) = unsafe { ((*reply).seen, leads_to::<I>(reply, &work.key)) };
    if !is_ours {
        // It was evicted, and another flow has its key now: this one has to begin anew.
        I::remove(Table::New, &work.key);
        return false;
    }
    if work.headers.begins && replied & seen::RST != 0 {
        end::<I>(work, Table::New);
        return false;
    }
    if work.headers.begins && replied & (seen::ANOTHERS | seen::PACKET) == seen::ANOTHERS {
        end::<I>(work, Table::New);
        work.may_keep_port = false;
        return false;
    }
    if replied & seen::PACKET != 0 && !work.headers.begins {
        work.other.seen = replied;
        confirm::<I>(work);
    }
    true
}

/// Whether what a reply entry makes of packets is a reply to packets of this key.
///
/// # Safety
///
/// `reply` is a live map value.
#[inline(always)]
unsafe fn leads_to<I: PacketIp>(reply: *const Flow<I::Words>, key: &Key<I::Words>) -> bool {
    // SAFETY: the caller's.
    let reply = unsafe { &*reply };
    reply.source_port == key.destination_port
        && reply.destination_port == key.source_port
        && I::equal(reply.source, key.destination)
        && I::equal(reply.destination, key.source)
}

/// Moves a flow to where nothing is evicted: its client went on after an answer, so both sides are there.
#[inline(always)]
fn confirm<I: PacketIp>(work: &mut Work<I::Words>) {
    if !put_confirmed::<I>(&work.other_key, &work.other) {
        return;
    }
    if !put_confirmed::<I>(&work.key, &work.flow) {
        I::remove(Table::Confirmed, &work.other_key);
        return;
    }
    end::<I>(work, Table::New);
    count(|counters| &mut counters.flows_confirmed);
}

/// True when the entry is there, whoever put it.
#[inline(always)]
fn put_confirmed<I: PacketIp>(key: &Key<I::Words>, flow: &Flow<I::Words>) -> bool {
    match I::put(Table::Confirmed, key, flow) {
        Ok(()) | Err(EEXIST) => true,
        Err(_) => {
            count(|counters| &mut counters.flow_map_full);
            false
        }
    }
}
