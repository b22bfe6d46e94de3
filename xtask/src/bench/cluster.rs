//! API objects of clusters of any size.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// The Service that the figures are taken with.
pub(super) const PROBE4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(super) const PROBE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10);
pub(super) const PROBE_PORT: u16 = 80;
/// Port of the probe's endpoint, the pod `server` of the first node.
pub(super) const ENDPOINT_PORT: u16 = 8080;
pub(super) const ENDPOINT4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
pub(super) const ENDPOINT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 2);

/// Objects of a cluster, made one by one: a large cluster is never held whole by the benchmark.
pub(super) struct Objects {
    probe: bool,
    services: usize,
    endpoints: usize,
}

/// The probe and so many Services, of two endpoints each, that there are `services` in all.
pub(super) fn with_probe(services: usize) -> Objects {
    Objects { probe: true, services: services.saturating_sub(1), endpoints: 2 }
}

/// `services` Services of `endpoints` endpoints each.
pub(super) fn plain(services: usize, endpoints: usize) -> Objects {
    Objects { probe: false, services, endpoints }
}

impl Objects {
    pub(super) fn iter(&self) -> impl Iterator<Item = Value> {
        let endpoints = self.endpoints;
        let probe = self.probe.then(|| probe(ENDPOINT4, ENDPOINT6)).into_iter().flatten();
        probe.chain((0..self.services).flat_map(move |index| filler(index, endpoints)))
    }
}

/// The probe with its one endpoint.
pub(super) fn probe(endpoint4: Ipv4Addr, endpoint6: Ipv6Addr) -> [Value; 3] {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "bench", "name": "probe"},
        "spec": {
            "type": "ClusterIP", "clusterIP": PROBE4, "clusterIPs": [PROBE4, PROBE6],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {"name": "tcp", "port": PROBE_PORT, "protocol": "TCP"},
                {"name": "udp", "port": PROBE_PORT, "protocol": "UDP"},
            ],
        },
    });
    [service, probe_slice("IPv4", json!(endpoint4)), probe_slice("IPv6", json!(endpoint6))]
}

fn probe_slice(family: &str, address: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "bench", "name": format!("probe-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": "probe"},
        },
        "addressType": family,
        "ports": [
            {"name": "tcp", "port": ENDPOINT_PORT, "protocol": "TCP"},
            {"name": "udp", "port": ENDPOINT_PORT, "protocol": "UDP"},
        ],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": "node-a"}],
    })
}

fn filler(index: usize, endpoints: usize) -> [Value; 2] {
    let name = format!("filler-{index}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "bench", "name": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": address([10, 100], index), "ipFamilies": ["IPv4"],
            "clusterIPs": [address([10, 100], index)],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    });
    let endpoints: Vec<Value> = (0..endpoints)
        .map(|endpoint| {
            let node = format!("node-{}", endpoint % 100);
            json!({
                "addresses": [address([10, 128], index * endpoints + endpoint)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": node,
                "targetRef": {"kind": "Pod", "namespace": "bench", "name": format!("{name}-{endpoint}")},
            })
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "bench", "name": format!("{name}-slice"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    [service, slice]
}

/// The address so many after the first of a /16, running on into those that follow.
fn address([a, b]: [u8; 2], index: usize) -> Ipv4Addr {
    let first = u32::from_be_bytes([a, b, 0, 1]);
    Ipv4Addr::from(first + u32::try_from(index).expect("fewer addresses than there are"))
}
