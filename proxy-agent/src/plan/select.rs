//! Which endpoints a service port has, and which of them are in which list (KUBE-PROXY.md 2.2 and 2.4).

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
};

use proxy_common::{EndpointList, Family, Protocol};

use super::PlannedEndpoint;
use crate::state::{Endpoint, EndpointSlice};

#[cfg(test)]
mod tests;

/// An endpoint of a slice with the number that the slice gives the port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    endpoint: &'a Endpoint,
    port: u16,
}

/// Which lists a service port uses, and what topology is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Uses the cluster list.
    pub(super) cluster: bool,
    /// Uses the local list.
    pub(super) local: bool,
    /// The zone this node is in.
    pub(super) zone: Option<&'a str>,
    /// Which endpoints are known besides those in a list.
    pub(super) keep: Keep,
}

/// Endpoints that take no new flows, but whose flows go on: they keep their backend while they are one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Those that are terminating and serving.
    Finishing,
    /// All that are serving, whatever policies and topology say (KUBE-PROXY.md 3.1).
    Serving,
    /// All that are in a slice.
    Present,
}

/// The endpoints of a service port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// As in [`super::ServicePortPlan::endpoints`].
    pub(super) endpoints: Vec<PlannedEndpoint>,
    /// As in [`super::ServicePortPlan::has_any`].
    pub(super) has_any: bool,
}

/// Longest `address:port` text: 39 characters of address, two brackets, a colon, five digits.
const KEY_LEN: usize = 47;

/// The endpoints in `slices` for the service port of this family, name and protocol, sorted by their
/// `address:port` text, each address and port once: a record that is not terminating replaces an earlier
/// one, a terminating one never does (KUBE-PROXY.md 2.2). Slices come in the order of their names, which
/// makes the choice between two records that are not terminating the same everywhere; kube-proxy leaves it
/// open.
pub(super) fn candidates<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    family: Family,
    name: &str,
    protocol: Protocol,
) -> Vec<Candidate<'a>> {
    let mut found: Vec<Candidate<'a>> = Vec::new();
    for slice in slices.filter(|slice| slice.address_type.family() == Some(family)) {
        for port in slice.ports.iter().filter(|port| port.protocol == protocol && *port.name == *name) {
            found.extend(slice.endpoints.iter().map(|endpoint| Candidate { endpoint, port: port.port }));
        }
    }
    // Stable: records of one address and port stay in their order.
    found.sort_by_cached_key(|candidate| text_key(candidate.endpoint.address, candidate.port));
    found.dedup_by(|next, stored| {
        let same = (next.endpoint.address, next.port) == (stored.endpoint.address, stored.port);
        if same && !next.endpoint.terminating {
            *stored = *next;
        }
        same
    });
    found
}

/// The `address:port` text, padded with zero bytes, which sort before every character.
fn text_key(address: IpAddr, port: u16) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    write!(&mut key[..], "{}", SocketAddr::new(address, port)).expect("every address and port fits");
    key
}

/// Puts each candidate into the lists that it belongs to, and leaves out those that are in none and need not be
/// known otherwise.
pub(super) fn select(candidates: &[Candidate<'_>], rules: Rules<'_>) -> Selection {
    let ready = || candidates.iter().map(|candidate| candidate.endpoint).filter(|endpoint| endpoint.ready);
    let any_ready = ready().next().is_some();
    let any_local_ready = ready().any(|endpoint| endpoint.local);
    let topology = if rules.cluster { Topology::of(ready, rules.zone) } else { Topology::None };
    let mut selection = Selection { endpoints: Vec::with_capacity(candidates.len()), has_any: any_ready };
    for Candidate { endpoint, port } in candidates {
        let finishing = endpoint.serving && endpoint.terminating;
        selection.has_any |= finishing;
        // A list that has a ready member consists of ready ones; otherwise of those that are finishing.
        let in_cluster = if any_ready { endpoint.ready && topology.accepts(endpoint) } else { finishing };
        let in_local = endpoint.local && if any_local_ready { endpoint.ready } else { finishing };
        let mut lists = EndpointList::None as u8;
        if rules.cluster && in_cluster {
            lists |= EndpointList::Cluster as u8;
        }
        if rules.local && in_local {
            lists |= EndpointList::Local as u8;
        }
        let kept = match rules.keep {
            Keep::Finishing => finishing,
            Keep::Serving => endpoint.serving,
            Keep::Present => true,
        };
        if lists != 0 || kept {
            selection.endpoints.push(PlannedEndpoint {
                address: endpoint.address,
                port: *port,
                local: endpoint.local,
                terminating: endpoint.terminating,
                lists,
            });
        }
    }
    // Topology often leaves a third of them.
    selection.endpoints.shrink_to_fit();
    selection
}

/// How the cluster list is narrowed down.
#[derive(Clone, Copy, Debug)]
enum Topology<'a> {
    Node,
    Zone(&'a str),
    None,
}

impl<'a> Topology<'a> {
    /// A mode needs hints of its kind on every ready endpoint, and one of them for this node or zone.
    fn of<'e, I: Iterator<Item = &'e Endpoint>>(ready: impl Fn() -> I, zone: Option<&'a str>) -> Self {
        if ready().all(|endpoint| endpoint.hints.as_ref().is_some_and(|hints| hints.has_nodes))
            && ready().any(|endpoint| Topology::Node.accepts(endpoint))
        {
            return Self::Node;
        }
        match zone.map(Topology::Zone) {
            Some(mode)
                if ready().all(|e| e.hints.as_ref().is_some_and(|hints| !hints.zones.is_empty()))
                    && ready().any(|endpoint| mode.accepts(endpoint)) =>
            {
                mode
            }
            _ => Self::None,
        }
    }

    fn accepts(self, endpoint: &Endpoint) -> bool {
        let hints = endpoint.hints.as_deref();
        match self {
            Self::Node => hints.is_some_and(|hints| hints.this_node),
            Self::Zone(zone) => hints.is_some_and(|hints| hints.zones.iter().any(|hint| **hint == *zone)),
            Self::None => true,
        }
    }
}
