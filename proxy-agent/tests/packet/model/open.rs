//! How a flow begins, and what is answered instead.

use std::net::IpAddr;

use proxy_common::{
    Affinity, Direction, EndpointList, FrontendKind, Hook, LinkRole, Onward, Role, WhenEmpty, is_live,
};

use super::{Answer, Content, DROP, Model, OwnError, PASS};
use crate::{
    flows::{Change, Client, Entry, Table, Tuple, family, filter_position},
    parse::{Ip, Ports},
    place::{Way, is_in_cluster, is_local},
    services::Frontend,
};

/// Where one endpoint is, and what a flow to it is like.
pub(super) struct Shape {
    /// Source address; `None` where there would have to be one and is none.
    pub(super) masquerade: Option<Option<IpAddr>>,
    pub(super) reply_hook: Hook,
    pub(super) onward: (Onward, Onward),
}

/// What a flow leads to.
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) backend: u32,
    pub(super) generation: u32,
    pub(super) service_port: u32,
}

/// Whether no host can have this address: the stack drops such packets by itself.
fn is_forged(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => matches!(source.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(source) => source.is_multicast() || source.is_unspecified() || source.is_loopback(),
    }
}

impl Model<'_> {
    /// A packet without a flow.
    pub(super) fn open(&mut self, ip: &Ip, ports: Ports, tuple: Tuple) -> Answer {
        if !self.may_open() || is_forged(ip.source) {
            return PASS;
        }
        let at = (tuple.destination, tuple.destination_port, tuple.protocol);
        let Some(frontend) = self.node.services.frontends.get(&at) else {
            return match ports.may_open() {
                true if self.node.services.is_cluster_ip(ip.destination) => self.unknown_port(ip),
                true => self.direct(ip, ports, tuple),
                false => PASS,
            };
        };
        if !ports.may_open() {
            return PASS;
        }
        if !frontend.serves(ip.source) {
            self.counts.source_range_denied += 1;
            return DROP;
        }
        // A pod of another node is no client outside.
        let outside = self.hook() == Hook::UplinkIngress
            && frontend.kind != FrontendKind::ClusterIp
            && !is_in_cluster(ip.source);
        let list = if outside {
            frontend.plan.external_list(frontend.kind)
        } else {
            frontend.plan.internal_list(frontend.kind)
        };
        if frontend.plan.list(list).next().is_none() {
            return match frontend.plan.when_empty(list) {
                WhenEmpty::Reject => {
                    self.counts.no_endpoint += 1;
                    self.port_unreachable(ip)
                }
                WhenEmpty::Drop => {
                    self.counts.no_local_endpoint += 1;
                    DROP
                }
            };
        }
        let sticky = self.sticky(frontend, list, ip.source);
        self.counts.affinity_hit += u64::from(sticky.is_some());
        match self.observed.tables.flow(Table::New, &tuple) {
            Some(theirs) => self.opened(ip, ports, tuple, frontend, list, sticky, &theirs),
            None => self.not_opened(ip, tuple, frontend, list, sticky),
        }
    }

    /// Nothing serves this port of the address.
    pub(super) fn unknown_port(&mut self, ip: &Ip) -> Answer {
        if !self.node.services.is_cluster_ip(ip.destination) {
            return PASS;
        }
        self.counts.unknown_port += 1;
        self.port_unreachable(ip)
    }

    /// An ICMP error that comes within connect() is forgotten by the kernel: a TCP client is told by a reset.
    fn port_unreachable(&mut self, ip: &Ip) -> Answer {
        let bare = ip.transport - ip.start == if ip.source.is_ipv4() { 20 } else { 40 };
        if ip.protocol == 6 && bare {
            self.unspecified |= self.or_malformed;
            return self.answer(Content::Reset);
        }
        let (kind, code) = if ip.source.is_ipv4() { (3, 3) } else { (1, 4) };
        self.own_error(OwnError { kind, code, mtu: 0 })
    }

    /// The backend that session affinity names.
    fn sticky(&self, frontend: &Frontend, list: EndpointList, client: IpAddr) -> Option<u32> {
        let timeout = frontend.plan.affinity_seconds?;
        let client = Client { address: client, service_port: frontend.service_port };
        let last = self.state.affinity.get(&client)?;
        let backend = self.observed.tables.backend(family(client.address), last.backend);
        let age = self.observed.time.0.saturating_sub(last.last_used);
        let counts = backend.generation == last.generation
            && is_live(last.generation)
            && backend.lists & list as u8 != 0
            && age < u64::from(timeout) * 1_000_000_000;
        counts.then_some(last.backend)
    }

    #[expect(clippy::too_many_arguments, reason = "the whole of what was looked up so far")]
    fn opened(
        &mut self,
        ip: &Ip,
        ports: Ports,
        tuple: Tuple,
        frontend: &Frontend,
        list: EndpointList,
        sticky: Option<u32>,
        theirs: &Entry,
    ) -> Answer {
        let backend = self.observed.tables.backend(family(ip.source), theirs.backend);
        if sticky.is_some_and(|sticky| sticky != theirs.backend) {
            self.complain(format!("affinity names backend {sticky:?}, not {}", theirs.backend));
        }
        let candidates = frontend.plan.list(list).map(|endpoint| (endpoint.address, endpoint.port));
        if !candidates.into_iter().any(|candidate| candidate == (backend.address, backend.port)) {
            self.complain(format!("{backend:?} is not a candidate of {:?}", frontend.plan));
        }
        if (backend.service_port, backend.protocol) != (frontend.service_port, tuple.protocol)
            || !is_live(backend.generation)
        {
            self.complain(format!("{backend:?} is not a backend of {frontend:?}"));
        }
        self.keep_affinity(frontend, ip.source, theirs.backend, backend.generation);
        let Some(shape) = self.shape(&tuple, backend.address) else {
            self.complain(format!("there is no route to {}", backend.address));
            return DROP;
        };
        if shape.masquerade == Some(None) {
            self.complain(format!("there is no source address towards {}", backend.address));
            return DROP;
        }
        let target = Target {
            address: backend.address,
            port: backend.port,
            backend: theirs.backend,
            generation: backend.generation,
            service_port: frontend.service_port,
        };
        self.establish(ip, ports, tuple, &shape, &target, theirs)
    }

    /// Makes the entries of a flow, and sends its first packet on.
    pub(super) fn establish(
        &mut self,
        ip: &Ip,
        ports: Ports,
        tuple: Tuple,
        shape: &Shape,
        target: &Target,
        theirs: &Entry,
    ) -> Answer {
        let source = shape.masquerade.flatten().unwrap_or(tuple.source);
        let kept = Tuple {
            source: target.address,
            destination: source,
            source_port: target.port,
            destination_port: tuple.source_port,
            protocol: tuple.protocol,
        };
        let reply_key = Tuple { destination_port: theirs.source_port, ..kept };
        self.check_source_port(shape, &kept, theirs.source_port);
        for (address, role) in [(tuple.destination, Role::Frontend), (target.address, Role::Endpoint)] {
            self.state.set(Change::Filter(filter_position(address, role), true));
        }
        let forward = Entry {
            last_seen: self.fresh(Some(theirs.last_seen)),
            source,
            destination: target.address,
            source_port: theirs.source_port,
            destination_port: target.port,
            backend: target.backend,
            generation: target.generation,
            service_port: target.service_port,
            hook: self.hook(),
            peer_hook: shape.reply_hook,
            direction: Direction::Forward,
            onward: shape.onward.0,
            peer_onward: shape.onward.1,
            seen: 0,
        };
        if self.state.is_taken(&reply_key) {
            self.check_eviction(shape, &tuple, &reply_key);
        }
        self.make_reply(&tuple, &forward, 0);
        self.counts.flows_opened += 1;
        self.touch(Table::New, tuple, forward, Some(ports));
        self.remember_fragment(ip, Some(ports));
        self.send(ip, Some(ports), &tuple, &forward)
    }

    /// The programs may have drawn an endpoint that cannot be reached, or no free source port.
    fn not_opened(
        &mut self,
        ip: &Ip,
        tuple: Tuple,
        frontend: &Frontend,
        list: EndpointList,
        sticky: Option<u32>,
    ) -> Answer {
        let family = family(ip.source);
        self.state.watch(Table::New, tuple);
        let sticky =
            sticky.map(|id| self.observed.tables.backend(family, id)).map(|one| (one.address, one.port));
        let endpoints: Vec<_> = match sticky {
            Some(endpoint) => vec![endpoint],
            None => frontend.plan.list(list).map(|endpoint| (endpoint.address, endpoint.port)).collect(),
        };
        let reachable =
            |endpoint: IpAddr| self.shape(&tuple, endpoint).filter(|shape| shape.masquerade != Some(None));
        let lost = endpoints.iter().any(|(address, _)| reachable(*address).is_none());
        let crowded = endpoints.iter().any(|(address, port)| {
            reachable(*address).is_some_and(|shape| self.is_crowded(&shape, &tuple, *address, *port))
        });
        if lost && self.observed.counts.unroutable == 1 {
            self.counts.unroutable += 1;
        } else if crowded && self.observed.counts.source_ports_exhausted == 1 {
            self.counts.source_ports_exhausted += 1;
        } else {
            self.complain(format!("a flow to one of {endpoints:?} should have been opened"));
        }
        // Whether the choice was noted before its failure is left open.
        let client = Client { address: ip.source, service_port: frontend.service_port };
        if frontend.plan.affinity_seconds.is_some()
            && let Some(theirs) = self.observed.tables.affinity(&client)
        {
            let backend = self.observed.tables.backend(family, theirs.backend);
            if endpoints.contains(&(backend.address, backend.port)) && backend.generation == theirs.generation
            {
                self.state.set(Change::Affinity(client, Some(theirs)));
            }
        }
        DROP
    }

    fn keep_affinity(&mut self, frontend: &Frontend, address: IpAddr, backend: u32, generation: u32) {
        if frontend.plan.affinity_seconds.is_none() {
            return;
        }
        let client = Client { address, service_port: frontend.service_port };
        let theirs = self.observed.tables.affinity(&client).map(|affinity| affinity.last_used);
        let affinity = Affinity { last_used: self.fresh(theirs), backend, generation };
        self.state.set(Change::Affinity(client, Some(affinity)));
    }

    /// What a flow to an endpoint is like; `None` when no route leads there.
    fn shape(&self, tuple: &Tuple, endpoint: IpAddr) -> Option<Shape> {
        let source = tuple.source;
        let place = self.node.place;
        let (role, address) = match place.way(endpoint) {
            Way::None => return None,
            // The stack takes nothing from a link that bears the node's own address as its source.
            Way::Local if self.hook() == Hook::UplinkEgress => return None,
            Way::Local => (LinkRole::Workload, place.named("up0").masquerade(family(source))),
            Way::Link { index, .. } => {
                let link = place.link(index);
                (link.leads_to(), link.masquerade(family(source)))
            }
        };
        let (hook, remote) = (self.hook(), role == LinkRole::Uplink);
        let is_host = place.way(endpoint) == Way::Local;
        let masquerades = (hook == Hook::UplinkIngress && remote) || endpoint == source;
        let reply_hook = match hook {
            _ if remote => Hook::UplinkIngress,
            Hook::UplinkIngress => Hook::UplinkEgress,
            Hook::WorkloadIngress if is_host => Hook::WorkloadEgress,
            _ => Hook::WorkloadIngress,
        };
        let to_node = hook == Hook::WorkloadIngress && is_local(tuple.destination);
        let onward = if masquerades || to_node {
            (Onward::Link, Onward::Link)
        } else if hook == Hook::UplinkEgress {
            (Onward::Link, Onward::Stack)
        } else {
            (Onward::Stack, Onward::Stack)
        };
        Some(Shape { masquerade: masquerades.then_some(address), reply_hook, onward })
    }

    /// `kept` is the key of the replies if the client's port stays.
    fn check_source_port(&mut self, shape: &Shape, kept: &Tuple, port: u16) {
        let (first, count) = self.node.ports;
        let given_out = (first..first + count).contains(&port);
        if shape.masquerade.is_none() && !self.port_is_anothers && !self.state.is_taken(kept) {
            if port != kept.destination_port {
                self.complain(format!("source port {port} replaces one that is free"));
            }
        } else if !given_out {
            self.complain(format!("source port {port} is none of those that are given out"));
        }
    }

    /// Another flow has the key of the replies. Only a half-open one may lose it, after all but the last tries.
    fn check_eviction(&mut self, shape: &Shape, tuple: &Tuple, reply: &Tuple) {
        let half_open = self.state.new.get(reply).is_some_and(|entry| entry.direction == Direction::Reply);
        if !half_open || !self.is_crowded(shape, tuple, reply.source, reply.source_port) {
            self.complain(format!("the reply's key is another flow's: {reply:?}"));
        }
    }

    /// Whether so many source ports are taken that a dozen tries may fail.
    pub(super) fn is_crowded(&self, shape: &Shape, tuple: &Tuple, address: IpAddr, port: u16) -> bool {
        let flows = self.state.confirmed.len() + self.state.new.len();
        if flows * 8 <= usize::from(self.node.ports.1) {
            return false;
        }
        let source = shape.masquerade.flatten().unwrap_or(tuple.source);
        let reply = Tuple {
            source: address,
            destination: source,
            source_port: port,
            destination_port: tuple.source_port,
            protocol: tuple.protocol,
        };
        let (first, count) = self.node.ports;
        let taken = (first..first + count)
            .filter(|port| self.state.is_taken(&Tuple { destination_port: *port, ..reply }))
            .count();
        let needed = shape.masquerade.is_some() || self.port_is_anothers || self.state.is_taken(&reply);
        // At an eighth the odds against a dozen failures are 70 billion to one.
        needed && taken * 8 > usize::from(count)
    }

    pub(super) fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }
}
