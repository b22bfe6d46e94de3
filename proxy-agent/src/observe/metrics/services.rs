use std::{cmp::Reverse, collections::HashMap, path::PathBuf};

use prometheus::{IntGauge, IntGaugeVec, Registry, Result};

use super::{
    IP_FAMILY,
    register::{gauge, gauges, number},
};
use crate::{
    datapath::{BackendView, busy_backends},
    state::family_of,
};

/// How many Services have numbers of their own: each is a time series for Prometheus.
#[derive(Clone, Debug)]
pub struct ServicesLimit {
    /// Where the maps are pinned.
    pub bpffs: PathBuf,
    /// Those with the most open sockets; the others are counted together.
    pub most: usize,
}

/// Open sockets of this node's processes by service port, where they are counted.
#[derive(Debug)]
pub(super) struct Services {
    limit: ServicesLimit,
    connections: IntGaugeVec,
    omitted: IntGauge,
}

type Labels = [String; 5];

impl Services {
    pub(super) fn new(registry: &Registry, limit: ServicesLimit) -> Result<Self> {
        let help = "Open sockets to endpoints of a service port";
        let labels = ["namespace", "service", "port_name", "protocol", IP_FAMILY];
        let connections = gauges(registry, "ferroute_service_connections", help, &labels)?;
        let help =
            "Service ports with open sockets that have no number of their own, because others have more";
        let omitted = gauge(registry, "ferroute_service_connections_omitted", help)?;
        Ok(Self { limit, connections, omitted })
    }

    pub(super) fn look(&self) {
        // Nothing is pinned before the first agent is ready.
        let backends = busy_backends(&self.limit.bpffs).unwrap_or_default();
        let (shown, omitted) = most(sockets(backends), self.limit.most);
        self.connections.reset();
        for (labels, sockets) in shown {
            let labels = labels.each_ref().map(String::as_str);
            self.connections.with_label_values(&labels).set(number(sockets));
        }
        self.omitted.set(number(omitted));
    }
}

/// Those of each service port that has any.
fn sockets(backends: Vec<BackendView>) -> HashMap<Labels, u64> {
    let mut sockets = HashMap::new();
    for backend in backends {
        let (namespace, name) = backend.service.split_once('/').unwrap_or(("", &backend.service));
        let family = family_of(backend.address).name();
        let protocol = backend.protocol.to_owned();
        let labels = [namespace.into(), name.into(), backend.port_name, protocol, family.into()];
        *sockets.entry(labels).or_default() += backend.active;
    }
    sockets
}

/// The first of them, and how many are left out.
fn most(sockets: HashMap<Labels, u64>, limit: usize) -> (Vec<(Labels, u64)>, usize) {
    let mut sorted: Vec<_> = sockets.into_iter().collect();
    sorted
        .sort_by(|(labels, count), (others, other)| (Reverse(count), labels).cmp(&(Reverse(other), others)));
    let omitted = sorted.len().saturating_sub(limit);
    sorted.truncate(limit);
    (sorted, omitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(service: &str) -> Labels {
        ["default", service, "http", "TCP", "IPv4"].map(str::to_owned)
    }

    #[test]
    fn those_with_the_most_are_shown_and_the_others_counted() {
        let sockets = HashMap::from([(labels("a"), 1), (labels("b"), 7), (labels("c"), 7), (labels("d"), 2)]);
        let (shown, omitted) = most(sockets, 3);
        assert_eq!(shown, [(labels("b"), 7), (labels("c"), 7), (labels("d"), 2)]);
        assert_eq!(omitted, 1);
    }

    #[test]
    fn endpoints_of_a_service_port_are_added_up() {
        let backend = |address: &str, active| BackendView {
            service: "default/web".into(),
            port_name: "http".into(),
            protocol: "TCP",
            address: address.parse().unwrap(),
            port: 80,
            lists: Vec::new(),
            backend: 1,
            generation: 1,
            active,
        };
        let sockets = sockets(vec![backend("10.0.0.1", 2), backend("10.0.0.2", 3)]);
        assert_eq!(sockets, HashMap::from([(labels("web"), 5)]));
    }
}
