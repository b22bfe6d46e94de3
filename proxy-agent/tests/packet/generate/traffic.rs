//! Packets by their purpose.

use std::net::IpAddr;

use proxy_common::{Family, Hook, Protocol};
use rand::{Rng as _, seq::IndexedRandom as _};

use super::Generator;
use crate::{
    build::Packet,
    flows::{Entry, Tuple, family},
    kernel::{Program, Run},
    parse::{chunk, tcp},
    place::{Place, is_local},
    services::Services,
};

impl Generator {
    /// The first packet of a flow, or one that only looks like it.
    pub(super) fn opening(&mut self, place: &Place, services: &Services) -> Vec<Run> {
        let (destination, destination_port, protocol) = *services.keys.choose(&mut self.random).unwrap();
        let source = self.client(family(destination));
        let (mut program, mut link, mut came_by) = self.entrance(place, source);
        if self.random.random_bool(0.05) {
            // Where no flow is opened: on its way out, or to a pod.
            (program, came_by) = (Program::UplinkEgress, self.pod(place));
            link = self.uplink(place, program);
            if self.random.random() {
                (program, link) = (Program::WorkloadEgress, self.pod(place));
            }
        }
        // Few source ports, so that flows meet again.
        let source_port = 40_000 + self.random.random_range(0..6);
        let destination_port = if self.random.random_bool(0.05) { 81 } else { destination_port };
        let protocol = if self.random.random_bool(0.03) { self.protocol() } else { protocol };
        let tuple = Tuple { source, destination, source_port, destination_port, protocol };
        let first = if protocol == Protocol::Tcp { tcp::SYN } else { chunk::INIT };
        let flags = if self.random.random_bool(0.85) { first } else { self.flags(protocol) };
        self.whole(Run { program, link, came_by, frame: Vec::new() }, &tuple, flags)
    }

    /// A packet of a flow, mostly where its packets are looked for.
    pub(super) fn packet_of(&mut self, place: &Place, tuple: Tuple, entry: &Entry) -> Vec<Run> {
        let hook = if self.random.random_bool(0.95) { entry.hook } else { self.hook() };
        let flags = self.flags(tuple.protocol);
        let run = self.run_at(place, hook, tuple.source);
        self.whole(run, &tuple, flags)
    }

    /// Another connection that looks like what a flow's packets become: to the endpoint by its own address, from the same
    /// port.
    pub(super) fn straight(&mut self, place: &Place, tuple: &Tuple) -> Vec<Run> {
        let (program, link, came_by) = self.entrance(place, tuple.source);
        let first = if tuple.protocol == Protocol::Tcp { tcp::SYN } else { chunk::INIT };
        let flags = if self.random.random_bool(0.85) { first } else { self.flags(tuple.protocol) };
        self.whole(Run { program, link, came_by, frame: Vec::new() }, tuple, flags)
    }

    /// An ICMP error about a packet that went the other way.
    pub(super) fn error_about(&mut self, place: &Place, tuple: Tuple, entry: &Entry) -> Vec<Run> {
        let hook = if self.random.random_bool(0.95) { entry.hook } else { self.hook() };
        let run = self.run_at(place, hook, tuple.source);
        let v4 = tuple.source.is_ipv4();
        let flags = self.flags(tuple.protocol);
        let payload = self.random.random_range(0..40);
        let mut quoted = Packet::transport(&tuple.flip(), flags, payload);
        self.decorate(&mut quoted);
        let mut quoted = quoted.bytes();
        let least = if v4 { 28 } else { 48 };
        if self.random.random_bool(0.5) && quoted.len() > least {
            quoted.truncate(self.random.random_range(least..quoted.len()));
        }
        let router =
            if self.random.random_bool(0.5) { tuple.source } else { self.client(family(tuple.source)) };
        let (kind, code) = *if v4 {
            [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)].choose(&mut self.random).unwrap()
        } else {
            [(1, 4), (2, 0), (3, 0), (4, 1)].choose(&mut self.random).unwrap()
        };
        let rest = [&[0, 0, 5, 0x14], &quoted[..]].concat();
        let mut packet = Packet::icmp(router, tuple.destination, kind, code, &rest);
        self.decorate(&mut packet);
        vec![Run { frame: packet.frame(), ..run }]
    }

    /// Something that has nothing to do with any flow.
    pub(super) fn unrelated(&mut self, place: &Place) -> Vec<Run> {
        let family = self.family();
        let (source, destination) = (self.client(family), self.client(family));
        let hook = self.hook();
        let run = self.run_at(place, hook, source);
        let ports = (self.random.random_range(1..1000), self.random.random_range(1..1000));
        let cluster_ip = if family == Family::V4 {
            IpAddr::from([10, 96, 0, self.random.random_range(1..4)])
        } else {
            format!("fd00:96::{}", self.random.random_range(1..4)).parse().unwrap()
        };
        let packet = match self.random.random_range(0..5) {
            0 => {
                let protocol = self.protocol();
                let tuple =
                    Tuple { source, destination, source_port: ports.0, destination_port: ports.1, protocol };
                let flags = self.flags(protocol);
                return self.whole(run, &tuple, flags);
            }
            1 => {
                let kind = if family == Family::V4 { 8 } else { 128 };
                Packet::icmp(source, cluster_ip, kind, 0, &[0; 40])
            }
            2 => Packet::icmp(source, destination, self.random.random(), self.random.random(), &[0; 60]),
            3 => Packet::new(source, cluster_ip, self.random.random(), vec![9; 24]),
            _ => {
                let mut frame = vec![0; self.random.random_range(20..80)];
                self.random.fill(&mut frame[..]);
                return vec![Run { frame, ..run }];
            }
        };
        vec![Run { frame: packet.frame(), ..run }]
    }

    /// A transport packet in full, or in two fragments.
    fn whole(&mut self, run: Run, tuple: &Tuple, flags: u8) -> Vec<Run> {
        let payload = match self.random.random_range(0..20) {
            0 => self.random.random_range(1_300..1_500),
            1 => self.random.random_range(1_500..3_000),
            2..12 => 0,
            _ => self.random.random_range(1..64),
        };
        let mut packet = Packet::transport(tuple, flags, payload);
        if self.random.random_bool(0.05) {
            // A checksum that was wrong before.
            let at = match tuple.protocol {
                Protocol::Tcp => 16,
                Protocol::Udp => 6,
                _ => 8,
            };
            packet.body[at] ^= self.random.random::<u8>();
        }
        if tuple.protocol == Protocol::Udp && self.random.random_bool(0.1) {
            packet.body[6..8].fill(0);
        }
        self.decorate(&mut packet);
        packet.id = self.random.random_range(0..4);
        let cut = 24;
        if packet.body.len() > cut && tuple.protocol != Protocol::Sctp && self.random.random_bool(0.2) {
            let pieces = packet.cut(cut);
            return pieces.map(|piece| Run { frame: piece.frame(), ..run.clone() }).into();
        }
        vec![Run { frame: packet.frame(), ..run }]
    }

    /// Options, extension headers and hop limits that are not what they usually are.
    fn decorate(&mut self, packet: &mut Packet) {
        if self.random.random_bool(0.1) {
            packet.options = self.random.random_range(1..=10);
            let count = self.random.random_range(0..8);
            packet.extensions =
                (0..count).map(|_| *[0, 43, 60, 51].choose(&mut self.random).unwrap()).collect();
            if self.random.random_bool(0.3) {
                // With nothing to say, unless the packet is cut.
                packet.extensions.push(44);
            }
        }
        if self.random.random_bool(0.1) {
            packet.hops = self.random.random_range(0..4);
        }
        packet.dont_fragment = self.random.random_bool(0.8);
    }

    /// TCP flags or the type of an SCTP chunk.
    fn flags(&mut self, protocol: Protocol) -> u8 {
        let usual = if protocol == Protocol::Tcp {
            [tcp::ACK, tcp::ACK, tcp::ACK | 8, tcp::FIN | tcp::ACK, tcp::RST, tcp::SYN, tcp::SYN | tcp::ACK]
        } else {
            use chunk::{ABORT, COOKIE_ECHO, DATA, INIT, INIT_ACK, SHUTDOWN, SHUTDOWN_COMPLETE};
            [DATA, COOKIE_ECHO, INIT_ACK, SHUTDOWN, ABORT, INIT, SHUTDOWN_COMPLETE]
        };
        if self.random.random_bool(0.05) {
            self.random.random()
        } else {
            *usual.choose(&mut self.random).unwrap()
        }
    }

    fn hook(&mut self) -> Hook {
        use Hook::{UplinkEgress, UplinkIngress, WorkloadEgress, WorkloadIngress};
        *[UplinkIngress, UplinkEgress, WorkloadIngress, WorkloadEgress].choose(&mut self.random).unwrap()
    }

    /// Where a packet with this source meets a hook.
    fn run_at(&mut self, place: &Place, hook: Hook, source: IpAddr) -> Run {
        let (program, link, came_by) = match hook {
            Hook::UplinkIngress | Hook::None => {
                let program =
                    if self.random.random_bool(0.3) { Program::UplinkXdp } else { Program::UplinkIngress };
                let link = self.uplink(place, program);
                (program, link, link)
            }
            Hook::UplinkEgress => {
                let came_by = if is_local(source) { 0 } else { self.pod(place) };
                (Program::UplinkEgress, self.uplink(place, Program::UplinkEgress), came_by)
            }
            Hook::WorkloadIngress => {
                let link = self.pod(place);
                (Program::WorkloadIngress, link, link)
            }
            Hook::WorkloadEgress => {
                let came_by = if is_local(source) { 0 } else { self.uplink(place, Program::UplinkIngress) };
                (Program::WorkloadEgress, self.pod(place), came_by)
            }
        };
        Run { program, link, came_by, frame: Vec::new() }
    }
}
