//! What the programs should do, written from the rules that they are to keep and not from their source: plain,
//! slow, and with every rule in one place.
//!
//! Where the programs draw lots (endpoint, source port) or look at the clock, the model takes what they
//! took, after seeing that they were free to take it.

mod direct;
mod flow;
mod icmp;
mod open;
mod rewrite;

use std::net::IpAddr;

use bytemuck::Zeroable as _;
use proxy_common::{Counters, Hook, Onward, Protocol, Role};

use crate::{
    flows::{Datagram, Entry, State, Table, Tuple, filter_position},
    kernel::{Program, Run, Verdict},
    parse::{self, Frame, Ip, Ports, Transport},
    place::{Place, Way},
    services::Services,
    tables::Tables,
};

pub(crate) use rewrite::Rewritten;

/// What does not change from packet to packet.
pub(crate) struct Node<'a> {
    pub(crate) place: &'a Place,
    pub(crate) services: &'a Services,
    /// First source port that is given out, and how many there are.
    pub(crate) ports: (u16, u16),
}

/// What the programs did with a packet.
pub(crate) struct Observed<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) frame: &'a [u8],
    pub(crate) counts: Counters,
    /// The maps as they are after it.
    pub(crate) tables: &'a Tables,
    /// The monotonic clock before and after, in nanoseconds.
    pub(crate) time: (u64, u64),
}

/// What the model expects of a packet.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) verdict: Verdict,
    pub(crate) content: Content,
    pub(crate) counts: Counters,
    /// Choices that the programs were not free to make.
    pub(crate) complaints: Vec<String>,
    /// Other fields of the packet contradict each other: it may as well be passed as malformed.
    pub(crate) or_malformed: bool,
    /// Anything goes.
    pub(crate) unspecified: bool,
    /// The client has another connection from the same port: a flow to the endpoint, or one that passes the Service by.
    pub(crate) port_is_anothers: bool,
}

/// What leaves a program.
#[derive(Debug)]
pub(crate) enum Content {
    /// What came.
    Same,
    /// Another packet.
    Exactly(Rewritten),
    /// An ICMP error about what came.
    Error(OwnError),
    /// A TCP reset for what came.
    Reset,
    /// Nothing: it was dropped.
    Nothing,
}

/// An ICMP error that the node sends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnError {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Of the link that a packet is too big for; 0 in other errors.
    pub(crate) mtu: u32,
}

/// Verdict and content.
type Answer = (Verdict, Content);

const PASS: Answer = (Verdict::Pass, Content::Same);
const DROP: Answer = (Verdict::Drop, Content::Nothing);

/// One packet through the model.
pub(crate) struct Model<'a> {
    node: &'a Node<'a>,
    state: &'a mut State,
    run: &'a Run,
    observed: &'a Observed<'a>,
    counts: Counters,
    complaints: Vec<String>,
    or_malformed: bool,
    unspecified: bool,
    /// The client has another connection from the same port.
    port_is_anothers: bool,
}

/// Takes one packet through the model: `state` becomes what it should be after it.
pub(crate) fn step(node: &Node<'_>, state: &mut State, run: &Run, observed: &Observed<'_>) -> Expected {
    let mut model = Model {
        node,
        state,
        run,
        observed,
        counts: Counters::zeroed(),
        complaints: Vec::new(),
        or_malformed: false,
        unspecified: false,
        port_is_anothers: false,
    };
    let (verdict, content) = model.frame();
    let Model { counts, complaints, or_malformed, unspecified, port_is_anothers, .. } = model;
    Expected { verdict, content, counts, complaints, or_malformed, unspecified, port_is_anothers }
}

impl Model<'_> {
    fn frame(&mut self) -> Answer {
        let ip = match parse::frame(&self.run.frame) {
            Frame::Foreign | Frame::Malformed if self.is_v6() => {
                // What is wrong first in a chain of headers, and how much of it was walked, is left open.
                self.counts.malformed = self.observed.counts.malformed.min(1);
                self.counts.fragment_unknown = self.observed.counts.fragment_unknown.min(1);
                return PASS;
            }
            Frame::Foreign => return PASS,
            Frame::Malformed => return self.malformed(),
            Frame::Ip(ip) => ip,
        };
        let transport = parse::transport(&self.run.frame, &ip);
        let icmp = matches!(transport, Transport::Icmp { .. });
        if self.run.program == Program::UplinkXdp && (ip.fragment.is_some() || icmp) {
            // TC does all of it, and may count it once more.
            self.counts.malformed = self.observed.counts.malformed.min(1);
            return PASS;
        }
        match transport {
            Transport::Malformed if parse::is_icmp(&ip) => {
                self.unspecified = true;
                PASS
            }
            Transport::Malformed => self.malformed(),
            Transport::Other => PASS,
            // In pieces: not looked into.
            Transport::Icmp { .. } if ip.fragment.is_some() => PASS,
            Transport::Icmp { kind, .. } if parse::is_error(&ip, kind) => self.icmp_error(&ip),
            Transport::Icmp { kind, .. } => {
                let echo_request = if ip.source.is_ipv4() { 8 } else { 128 };
                if kind == echo_request && self.may_open() { self.unknown_port(&ip) } else { PASS }
            }
            Transport::Later(protocol) => self.later(&ip, protocol),
            Transport::Ports(ports) => {
                self.or_malformed = ports.doubtful;
                let tuple = tuple(&ip, &ports);
                self.begin(&ip, ports, tuple)
            }
        }
    }

    fn is_v6(&self) -> bool {
        parse::word(&self.run.frame, 12) == Some(0x86dd)
    }

    fn malformed(&mut self) -> Answer {
        self.counts.malformed += 1;
        PASS
    }

    /// A whole packet, or the first fragment of one.
    fn begin(&mut self, ip: &Ip, ports: Ports, tuple: Tuple) -> Answer {
        match self.find(&tuple) {
            Some((_, entry)) if entry.hook != self.hook() => PASS,
            Some((_, entry)) if entry.is_direct() && self.was_with_xdp(ip) => PASS,
            Some((table, entry)) => self.flow(ip, Some(ports), tuple, table, entry),
            None => self.open(ip, ports, tuple),
        }
    }

    /// A fragment after the first.
    fn later(&mut self, ip: &Ip, protocol: Protocol) -> Answer {
        let datagram = datagram(ip, protocol);
        let Some((source_port, destination_port)) = self.state.fragments.get(&datagram).copied() else {
            self.counts.fragment_unknown += u64::from(self.gate(ip.source, ip.destination));
            return PASS;
        };
        let Ip { source, destination, .. } = *ip;
        let tuple = Tuple { source, destination, source_port, destination_port, protocol };
        match self.find(&tuple) {
            Some((table, entry)) if entry.hook == self.hook() => self.flow(ip, None, tuple, table, entry),
            _ => PASS,
        }
    }

    /// Rewrites a packet and sends it on.
    fn send(&mut self, ip: &Ip, ports: Option<Ports>, tuple: &Tuple, entry: &Entry) -> Answer {
        let new = entry.rewritten(tuple.protocol);
        let rewritten = Rewritten::new(&self.run.frame, ip, ports.map(|ports| ports.protocol), &new);
        self.onward(ip, entry.onward, rewritten, new.destination)
    }

    /// Sends a rewritten packet on.
    fn onward(&mut self, ip: &Ip, onward: Onward, mut rewritten: Rewritten, to: IpAddr) -> Answer {
        if onward == Onward::Stack {
            return (Verdict::Pass, Content::Exactly(rewritten));
        }
        let (way, v4) = (self.node.place.way(to), ip.source.is_ipv4());
        if way != Way::Local && rewritten.hops(ip) <= 1 {
            return self.own_error(OwnError { kind: if v4 { 11 } else { 3 }, code: 0, mtu: 0 });
        }
        let Way::Link { index, mac } = way else { return self.not_forwarded(rewritten, to) };
        rewritten.hop(ip);
        let link = self.node.place.link(index);
        if self.run.program == Program::UplinkXdp && index != self.run.link && !link.xdp {
            // TC does all of it.
            return PASS;
        }
        if ip.end - ip.start > link.mtu {
            let mtu = u32::try_from(link.mtu).unwrap();
            return self.own_error(if v4 {
                OwnError { kind: 3, code: 4, mtu }
            } else {
                OwnError { kind: 2, code: 0, mtu }
            });
        }
        rewritten.put_macs(mac, link.mac);
        self.counts.xdp_forwarded += u64::from(self.run.program == Program::UplinkXdp);
        (Verdict::Redirect, Content::Exactly(rewritten))
    }

    /// The node itself is where it goes, or nobody.
    fn not_forwarded(&mut self, rewritten: Rewritten, to: IpAddr) -> Answer {
        if self.run.program == Program::UplinkXdp {
            // TC does all of it.
            return PASS;
        }
        if self.node.place.way(to) == Way::Local {
            return (Verdict::Pass, Content::Exactly(rewritten));
        }
        self.counts.unroutable += 1;
        DROP
    }

    /// Answers with an ICMP error; or not, when there were too many lately.
    fn own_error(&mut self, error: OwnError) -> Answer {
        self.answer(Content::Error(error))
    }

    /// Answers, whatever with.
    fn answer(&mut self, content: Content) -> Answer {
        if self.run.program == Program::UplinkXdp {
            // TC answers.
            return PASS;
        }
        if self.observed.counts.icmp_suppressed == 1 {
            self.counts.icmp_suppressed += 1;
            return DROP;
        }
        self.counts.icmp_sent += 1;
        (Verdict::Redirect, content)
    }

    /// The flow entry of a key; at first glance only addresses count.
    fn find(&self, tuple: &Tuple) -> Option<(Table, Entry)> {
        if !self.gate(tuple.source, tuple.destination) {
            return None;
        }
        [Table::Confirmed, Table::New]
            .into_iter()
            .find_map(|table| self.state.flow(table, tuple).map(|entry| (table, entry)))
    }

    fn gate(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.state.filter.contains(&filter_position(destination, Role::Frontend))
            || self.state.filter.contains(&filter_position(source, Role::Endpoint))
    }

    fn hook(&self) -> Hook {
        self.run.program.hook()
    }

    /// Whether flows are opened at this hook, for this packet.
    fn may_open(&self) -> bool {
        match self.hook() {
            Hook::UplinkIngress | Hook::WorkloadIngress => true,
            Hook::UplinkEgress => self.run.came_by == 0,
            _ => false,
        }
    }
}

fn tuple(ip: &Ip, ports: &Ports) -> Tuple {
    Tuple {
        source: ip.source,
        destination: ip.destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: ports.protocol,
    }
}

/// What the fragments of a packet share.
fn datagram(ip: &Ip, protocol: Protocol) -> Datagram {
    let id = ip.fragment.map_or(0, |fragment| fragment.id);
    Datagram { source: ip.source, destination: ip.destination, id, protocol }
}
