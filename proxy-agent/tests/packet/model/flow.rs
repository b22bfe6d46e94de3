//! A packet of a flow: what it does to the flow's entries.

use std::net::IpAddr;

use proxy_common::{Direction, NO_BACKEND, Protocol, is_live, seen};

use super::{Answer, Model, PASS, datagram};
use crate::{
    flows::{Change, Entry, Table, Tuple, family},
    parse::{Ip, Ports},
};

impl Model<'_> {
    /// A packet of a flow.
    pub(super) fn flow(
        &mut self,
        ip: &Ip,
        ports: Option<Ports>,
        tuple: Tuple,
        table: Table,
        entry: Entry,
    ) -> Answer {
        let peer = entry.rewritten(tuple.protocol).flip();
        // The kernel may have evicted the other entry, and another flow have taken its key.
        let is_ours = |reply: &Entry| reply.rewritten(tuple.protocol) == tuple.flip();
        let reply = self.state.flow(table, &peer).filter(is_ours);
        self.state.watch(table, tuple);
        self.state.watch(table, peer);
        let forward = entry.direction == Direction::Forward;
        let starts = ports.is_some_and(|ports| ports.starts());
        if forward {
            let stale = tuple.protocol == Protocol::Udp && !self.is_current(tuple.source, &entry);
            let again = starts && reply.is_some_and(|reply| is_closed(table, &entry, &reply));
            if stale || again {
                self.counts.repicked += u64::from(stale);
                self.state.set(Change::Flow(table, tuple, None));
                if reply.is_some() {
                    self.state.set(Change::Flow(table, peer, None));
                }
                return ports.map_or(PASS, |ports| self.open(ip, ports, tuple));
            }
        }
        let mut now_in = table;
        // A SYN is answered by another, or a reset. Anything else is of a connection that passes the Service by.
        let unanswered = |reply: &Entry| reply.seen & (seen::PACKET | seen::MADE_AGAIN) == 0;
        if !forward && table == Table::New && unanswered(&entry) && ports.is_some_and(|ports| ports.goes_on())
        {
            let seen = entry.seen | seen::ANOTHERS;
            self.state.set(Change::Flow(table, tuple, Some(Entry { seen, ..entry })));
            return PASS;
        }
        if forward && table == Table::New {
            match reply {
                None if !self.state.is_taken(&peer) => {
                    self.make_reply(&tuple, &entry, if starts { 0 } else { seen::MADE_AGAIN });
                }
                None => {
                    self.state.set(Change::Flow(Table::New, tuple, None));
                    return ports.map_or(PASS, |ports| self.open(ip, ports, tuple));
                }
                // The port is that of another connection: the client's next attempt gets another.
                Some(reply) if starts && reply.seen & (seen::ANOTHERS | seen::PACKET) == seen::ANOTHERS => {
                    self.state.set(Change::Flow(Table::New, tuple, None));
                    self.state.set(Change::Flow(Table::New, peer, None));
                    self.port_is_anothers = true;
                    return ports.map_or(PASS, |ports| self.open(ip, ports, tuple));
                }
                Some(reply) if reply.seen & seen::PACKET != 0 && !starts => {
                    now_in = Table::Confirmed;
                    self.counts.flows_confirmed += 1;
                    for (key, mut entry) in [(tuple, entry), (peer, reply)] {
                        self.state.set(Change::Flow(Table::New, key, None));
                        // Both are written anew, and may then have the time of the one.
                        let theirs = self.observed.tables.flow(Table::Confirmed, &tuple);
                        if let Some(theirs) = theirs
                            && key == peer
                            && self.observed.tables.flow(Table::Confirmed, &peer).map(|reply| reply.last_seen)
                                == Some(theirs.last_seen)
                        {
                            entry.last_seen = theirs.last_seen;
                        }
                        self.state.set(Change::Flow(Table::Confirmed, key, Some(entry)));
                    }
                }
                Some(_) => {}
            }
        }
        self.touch(now_in, tuple, entry, ports);
        self.remember_fragment(ip, ports);
        self.send(ip, ports, &tuple, &entry)
    }

    /// The state of one direction after one of its packets.
    pub(super) fn touch(&mut self, table: Table, tuple: Tuple, mut entry: Entry, ports: Option<Ports>) {
        // A fragment after the first shows nothing, but that a reset was not believed.
        let packet = if ports.is_some() { seen::PACKET } else { entry.seen & seen::PACKET };
        entry.seen = packet | entry.seen & (seen::FIN | seen::ANOTHERS | seen::MADE_AGAIN);
        if ports.is_some_and(|ports| ports.ends()) {
            entry.seen |= seen::FIN;
        }
        if ports.is_some_and(|ports| ports.resets()) {
            entry.seen |= seen::RST;
        }
        let theirs = self.observed.tables.flow(table, &tuple).map(|entry| entry.last_seen);
        entry.last_seen = self.refreshed(entry.last_seen, theirs);
        self.state.set(Change::Flow(table, tuple, Some(entry)));
    }

    /// What a time stamp should be now that was `before`: replaced only when it is older than a second. The
    /// programs' clock may stand still for some milliseconds.
    fn refreshed(&self, before: u64, theirs: Option<u64>) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        const TICK: u64 = 20_000_000;
        let (from, until) = self.observed.time;
        let theirs = theirs.unwrap_or(0);
        let kept = theirs == before && until.saturating_sub(before) < SECOND + TICK;
        let renewed = (from - TICK..=until).contains(&theirs)
            && (from.saturating_sub(before) > SECOND - TICK || before == 0);
        if kept || renewed { theirs } else { before }
    }

    /// Whether a new time stamp is of now; a wrong one is replaced by one that will not compare equal.
    pub(super) fn fresh(&self, theirs: Option<u64>) -> u64 {
        self.refreshed(0, theirs)
    }

    pub(super) fn make_reply(&mut self, tuple: &Tuple, entry: &Entry, seen: u8) {
        let key = entry.rewritten(tuple.protocol).flip();
        let becomes = tuple.flip();
        let theirs = self.observed.tables.flow(Table::New, &key).map(|entry| entry.last_seen);
        let reply = Entry {
            last_seen: if theirs == Some(entry.last_seen) { entry.last_seen } else { self.fresh(theirs) },
            source: becomes.source,
            destination: becomes.destination,
            source_port: becomes.source_port,
            destination_port: becomes.destination_port,
            hook: entry.peer_hook,
            peer_hook: entry.hook,
            direction: Direction::Reply,
            onward: entry.peer_onward,
            peer_onward: entry.onward,
            seen,
            ..*entry
        };
        self.state.set(Change::Flow(Table::New, key, Some(reply)));
    }

    pub(super) fn remember_fragment(&mut self, ip: &Ip, ports: Option<Ports>) {
        if let (Some(_), Some(ports)) = (ip.fragment, ports) {
            let kept = Some((ports.source, ports.destination));
            self.state.set(Change::Fragment(datagram(ip, ports.protocol), kept));
        }
    }

    /// Whether a flow's backend is still the one that was chosen.
    fn is_current(&self, address: IpAddr, entry: &Entry) -> bool {
        let backend = self.observed.tables.backend(family(address), entry.backend);
        // A connection to the endpoint's own address has none.
        entry.backend == NO_BACKEND || backend.generation == entry.generation && is_live(entry.generation)
    }
}

/// Whether both sides, or one by force, have ended what a new connection comes on.
fn is_closed(table: Table, entry: &Entry, reply: &Entry) -> bool {
    if table == Table::New {
        // All that can have been before is a refusal.
        return reply.seen & seen::RST != 0;
    }
    (entry.seen | reply.seen) & seen::RST != 0 || entry.seen & reply.seen & seen::FIN != 0
}
