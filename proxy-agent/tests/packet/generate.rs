//! What happens to the node: packets that open flows, go on with them, report errors about them or have
//! nothing to do with them, and what else changes in between.

mod mutate;
mod traffic;

use std::net::{IpAddr, Ipv6Addr};

use proxy_common::{Family, Protocol};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    flows::{Client, Entry, State, Table, Tuple},
    kernel::{Program, Run},
    place::{NODE4, NODE6, Place},
    services::{Services, endpoint_addresses},
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Packet(Run),
    /// Some Service gets other endpoints or policies.
    Services,
    /// The last packet of a flow entry was this long ago.
    Age(Table, Tuple, u64),
    /// The last connection of a client with session affinity was this long ago.
    AgeAffinity(Client, u64),
    /// The kernel has evicted a half-open flow's reply entry.
    Evict(Tuple),
}

/// Draws what happens next.
pub(crate) struct Generator {
    random: StdRng,
    /// Further packets of what was begun.
    pending: Vec<Run>,
}

const SECOND: u64 = 1_000_000_000;

impl Generator {
    pub(crate) fn new(random: StdRng) -> Self {
        Self { random, pending: Vec::new() }
    }

    pub(crate) fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    /// What happens next, given what is.
    pub(crate) fn next(&mut self, place: &Place, services: &Services, state: &State) -> Event {
        if let Some(run) = self.pending.pop() {
            return Event::Packet(run);
        }
        match self.random.random_range(0..1000) {
            0..4 => Event::Services,
            4..14 => self.age(state),
            14..18 => self.evict(state),
            _ => {
                self.packets(place, services, state);
                self.pending.pop().map_or(Event::Services, Event::Packet)
            }
        }
    }

    /// Queues one packet, or the fragments of one.
    fn packets(&mut self, place: &Place, services: &Services, state: &State) {
        let flow = self.any_flow(state);
        let mut runs = match (self.random.random_range(0..100), flow) {
            (0..50, Some((tuple, entry))) => self.packet_of(place, tuple, &entry),
            (50..58, Some((tuple, entry))) => self.error_about(place, tuple, &entry),
            (58..63, Some((tuple, entry))) => self.straight(place, &entry.rewritten(tuple.protocol)),
            (63..93, _) | (_, None) => self.opening(place, services),
            _ => self.unrelated(place),
        };
        // The last is taken first; sometimes the second fragment overtakes the first.
        if !self.random.random_bool(0.1) {
            runs.reverse();
        }
        for run in &mut runs {
            self.mutate(run);
        }
        self.pending = runs;
    }

    fn any_flow(&mut self, state: &State) -> Option<(Tuple, Entry)> {
        let map = if self.random.random_bool(0.4) { &state.confirmed } else { &state.new };
        if map.is_empty() {
            return None;
        }
        let at = self.random.random_range(0..map.len());
        map.iter().nth(at).map(|(tuple, entry)| (*tuple, *entry))
    }

    fn age(&mut self, state: &State) -> Event {
        if self.random.random_bool(0.3) && !state.affinity.is_empty() {
            let at = self.random.random_range(0..state.affinity.len());
            let client = *state.affinity.keys().nth(at).unwrap();
            // Either side of the Services' timeout.
            return Event::AgeAffinity(client, if self.random.random() { 98 } else { 102 } * SECOND);
        }
        let table = if self.random.random_bool(0.5) { Table::Confirmed } else { Table::New };
        let map = if table == Table::New { &state.new } else { &state.confirmed };
        if map.is_empty() {
            return Event::Services;
        }
        let at = self.random.random_range(0..map.len());
        Event::Age(table, *map.keys().nth(at).unwrap(), 3 * SECOND)
    }

    fn evict(&mut self, state: &State) -> Event {
        let replies = state.new.iter().filter(|(_, entry)| entry.direction == proxy_common::Direction::Reply);
        let replies: Vec<_> = replies.map(|(tuple, _)| *tuple).collect();
        replies.choose(&mut self.random).map_or(Event::Services, |tuple| Event::Evict(*tuple))
    }

    /// A place where packets with this source come in, or are made.
    fn entrance(&mut self, place: &Place, source: IpAddr) -> (Program, u32, u32) {
        if crate::place::is_local(source) {
            let link = self.uplink(place, Program::UplinkEgress);
            return (Program::UplinkEgress, link, 0);
        }
        if let crate::place::Way::Link { index, .. } = place.way(source)
            && place.link(index).leads_to() == proxy_common::LinkRole::Workload
        {
            return (Program::WorkloadIngress, index, index);
        }
        let program = if self.random.random_bool(0.3) { Program::UplinkXdp } else { Program::UplinkIngress };
        let link = self.uplink(place, program);
        (program, link, link)
    }

    fn uplink(&mut self, place: &Place, program: Program) -> u32 {
        let names: &[&str] = if program == Program::UplinkXdp {
            &["up0", "up1", "tun0"]
        } else {
            &["up0", "up1", "tun0", "bare0"]
        };
        place.named(names.choose(&mut self.random).unwrap()).index
    }

    fn pod(&mut self, place: &Place) -> u32 {
        place.named(["pod1", "pod2", "pod3"].choose(&mut self.random).unwrap()).index
    }

    /// A client: outside, on another host, the node itself, or any pod.
    fn client(&mut self, family: Family) -> IpAddr {
        let last = self.random.random_range(1..12_u8);
        match (self.random.random_range(0..10), family) {
            (0..5, Family::V4) => [203, 0, 113, last].into(),
            (0..5, _) => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, last.into()).into(),
            (5, Family::V4) => NODE4[usize::from(last % 2)].into(),
            (5, _) => NODE6[usize::from(last % 2)].into(),
            _ => *endpoint_addresses(family).choose(&mut self.random).unwrap(),
        }
    }

    fn family(&mut self) -> Family {
        if self.random.random() { Family::V4 } else { Family::V6 }
    }

    fn protocol(&mut self) -> Protocol {
        *[Protocol::Tcp, Protocol::Udp, Protocol::Sctp].choose(&mut self.random).unwrap()
    }
}
