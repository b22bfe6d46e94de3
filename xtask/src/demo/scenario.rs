//! Who is where in the demonstration, and which Services there are. `deploy/examples` says the same
//! to the agent: a test keeps the two in step.

use std::net::SocketAddr;

use crate::lab::{Lab, Via};

/// The lab. Addresses follow from the order: `web-2` is the first pod of the second node, 10.244.2.1.
pub(super) const NODES: &[(&str, &[&str])] = &[
    ("node-a", &["client", "web-1", "dns-1"]),
    ("node-b", &["web-2", "web-3", "dns-2", "db-1", "db-2", "web-4"]),
];

/// A Service of the examples.
pub(super) struct Service {
    pub(super) name: &'static str,
    /// Cluster addresses, without the port.
    pub(super) addresses: [&'static str; 2],
    pub(super) port: u16,
    pub(super) vias: &'static [Via],
    pub(super) endpoints: &'static [&'static str],
    /// Its port at every node, for clients outside of the cluster.
    pub(super) node_port: Option<u16>,
    /// What the endpoints listen on.
    pub(super) target: u16,
    /// A client stays with its endpoint.
    pub(super) sticky: bool,
}

/// The Services of the examples.
pub(super) const SERVICES: &[Service] = &[
    Service {
        name: "default/web",
        addresses: ["10.96.0.10", "fd00:10:96::10"],
        port: 80,
        vias: &[Via::Tcp],
        endpoints: &["web-1", "web-2", "web-3"],
        target: 8080,
        node_port: Some(30_080),
        sticky: false,
    },
    Service {
        name: "kube-system/dns",
        addresses: ["10.96.0.53", "fd00:10:96::53"],
        port: 53,
        vias: &[Via::Udp, Via::UdpConnected, Via::Tcp],
        endpoints: &["dns-1", "dns-2"],
        target: 5353,
        node_port: Some(30_053),
        sticky: false,
    },
    Service {
        name: "default/db",
        addresses: ["10.96.0.20", "fd00:10:96::20"],
        port: 5432,
        vias: &[Via::Tcp],
        endpoints: &["db-1", "db-2"],
        target: 5432,
        node_port: None,
        sticky: true,
    },
    Service {
        name: "default/empty",
        addresses: ["10.96.0.30", "fd00:10:96::30"],
        port: 80,
        vias: &[Via::Tcp],
        endpoints: &[],
        target: 8080,
        node_port: None,
        sticky: false,
    },
];

/// The pod that is no endpoint at first, and then is one of `default/web`.
pub(super) const SPARE: &str = "web-4";

impl Service {
    /// The Service of this name.
    pub(super) fn named(name: &str) -> &'static Self {
        let found = SERVICES.iter().find(|service| service.name == name);
        found.unwrap_or_else(|| panic!("the demonstration has no Service {name}"))
    }

    /// Its node port at both addresses of every node.
    pub(super) fn node_ports(&self, lab: &Lab) -> Vec<SocketAddr> {
        let addresses = NODES.iter().flat_map(|(node, _)| lab.node(node).addresses().both());
        let of = |port: u16| addresses.map(|address| SocketAddr::new(address, port)).collect();
        self.node_port.map_or_else(Vec::new, of)
    }

    /// Its cluster addresses, IPv4 first.
    pub(super) fn sockets(&self) -> [SocketAddr; 2] {
        self.addresses.map(|ip| {
            let ip = ip.parse().unwrap_or_else(|error| panic!("{ip} in the demonstration: {error}"));
            SocketAddr::new(ip, self.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use serde_json::Value;

    use super::*;
    use crate::lab::{Addresses, Manifests};

    fn addresses_of(pod: &str) -> Addresses {
        let number = |index: usize| u8::try_from(index + 1).expect("a small lab");
        let place = NODES.iter().enumerate().find_map(|(node, (_, pods))| {
            let index = pods.iter().position(|name| *name == pod)?;
            Some(Addresses::pod(number(node), number(index)))
        });
        place.expect("the pod is in the lab")
    }

    fn documents() -> Vec<Value> {
        let manifests = Manifests::new().expect("a folder");
        manifests.copy_from(&super::super::examples()).expect("the examples are there");
        let files = ["nodes.yaml", "web.yaml", "dns.yaml", "db.yaml", "empty.yaml"];
        files.iter().flat_map(|file| manifests.read(file).expect("the example is YAML")).collect()
    }

    fn strings(list: &Value) -> Vec<&str> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    #[test]
    fn the_examples_name_the_services_of_the_demonstration() {
        let documents = documents();
        for service in SERVICES {
            let (namespace, name) = service.name.split_once('/').expect("namespace/name");
            let object = documents.iter().find(|object| {
                object["kind"] == "Service"
                    && object["metadata"]["name"] == name
                    && object["metadata"]["namespace"] == namespace
            });
            let spec = &object.unwrap_or_else(|| panic!("no example has {}", service.name))["spec"];
            assert_eq!(strings(&spec["clusterIPs"]), service.addresses, "{name}");
            assert_eq!(spec["clusterIP"], service.addresses[0], "{name}");
            assert_eq!(spec["sessionAffinity"] == "ClientIP", service.sticky, "{name}");
            for port in spec["ports"].as_array().expect("ports") {
                assert_eq!(
                    (&port["port"], &port["targetPort"]),
                    (&service.port.into(), &service.target.into()),
                    "{name}"
                );
                assert_eq!(port["nodePort"].as_u64(), service.node_port.map(u64::from), "{name}");
            }
        }
    }

    #[test]
    fn the_examples_name_the_pods_of_the_lab() {
        let documents = documents();
        for service in SERVICES {
            let name = service.name.split_once('/').expect("namespace/name").1;
            let slices = documents.iter().filter(|object| {
                object["kind"] == "EndpointSlice"
                    && object["metadata"]["labels"]["kubernetes.io/service-name"] == name
            });
            let endpoints =
                slices.flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
            let found: BTreeSet<(IpAddr, String)> = endpoints
                .map(|endpoint| {
                    let address = endpoint["addresses"][0].as_str().expect("an address");
                    let node = endpoint["nodeName"].as_str().expect("a node");
                    (address.parse().expect("an IP address"), node.to_owned())
                })
                .collect();
            let wanted = service.endpoints.iter().flat_map(|pod| {
                let node = NODES.iter().find(|(_, pods)| pods.contains(pod)).expect("a node").0;
                addresses_of(pod).both().map(|ip| (ip, node.to_owned()))
            });
            assert_eq!(found, wanted.collect(), "{name}");
        }
    }
}
