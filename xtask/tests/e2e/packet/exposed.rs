//! A Service that is to be had in every way: cluster IPs, node ports, external IPs, load-balancer IPs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
};

use serde_json::Value;
use xtask::lab::{
    Network, Place, Via,
    objects::{ServiceBuilder, SliceBuilder},
};

use crate::fixture::{Member, TARGET, Web};

/// The port of every frontend but node ports.
pub(crate) const PORT: u16 = 80;

/// What is tried at each frontend, where it is answered.
pub(crate) const VIAS: [Via; 3] = [Via::Tcp, Via::Udp, Via::Sctp];

/// Networks of external, load-balancer and cluster IPs, which the router sends to a node.
pub(crate) const NETWORKS: [Network; 6] = [
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0)), 64),
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0)), 64),
    (IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0)), 64),
];

/// TCP, UDP and SCTP at port 80, to pods at 8080, in both families. The three protocols share the number of
/// their node port.
#[derive(Clone, Debug)]
pub(crate) struct Exposed {
    pub(crate) web: Web,
    pub(crate) node_port: u16,
    external: [IpAddr; 2],
    balancer: [IpAddr; 2],
}

impl Exposed {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = 1 + n % 250;
        let [_, low] = host.to_be_bytes();
        let v6 = |site| Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host).into();
        Self {
            web: Web::new(name),
            node_port: 30_000 + n,
            external: [Ipv4Addr::new(203, 0, 113, low).into(), v6(0x113)],
            balancer: [Ipv4Addr::new(198, 51, 100, low).into(), v6(0x51)],
        }
    }

    /// The Service, to be changed and built.
    pub(crate) fn service(&self) -> ServiceBuilder {
        let ports = [("tcp", "TCP"), ("udp", "UDP"), ("sctp", "SCTP")];
        let service = self.web.bare().kind("LoadBalancer");
        let service = ports.iter().fold(service, |service, (name, protocol)| {
            service.port(name, protocol, PORT, TARGET).node_port(self.node_port)
        });
        let service = self.external.iter().fold(service, |service, ip| service.external_ip(*ip));
        self.balancer.iter().fold(service, |service, ip| service.balancer_ip(*ip))
    }

    /// Its slices, one for each family.
    pub(crate) fn slices(&self, members: &[Member]) -> Vec<Value> {
        self.web.slices_with(members, |slice: SliceBuilder| {
            slice.port("tcp", "TCP", TARGET).port("udp", "UDP", TARGET).port("sctp", "SCTP", TARGET)
        })
    }

    /// The Service and its slices.
    pub(crate) fn of(&self, members: &[Member]) -> Vec<Value> {
        [vec![self.service().build()], self.slices(members)].concat()
    }

    /// The node port on the addresses of a node.
    pub(crate) fn node_port_of(&self, node: &Place) -> [SocketAddr; 2] {
        node.addresses().both().map(|ip| SocketAddr::new(ip, self.node_port))
    }

    pub(crate) fn external(&self) -> [SocketAddr; 2] {
        self.external.map(|ip| SocketAddr::new(ip, PORT))
    }

    pub(crate) fn balancer(&self) -> [SocketAddr; 2] {
        self.balancer.map(|ip| SocketAddr::new(ip, PORT))
    }

    pub(crate) fn cluster(&self) -> [SocketAddr; 2] {
        self.web.both()
    }

    /// Every frontend that the router sends to the node, or that is the node's.
    pub(crate) fn all_of(&self, node: &Place) -> Vec<SocketAddr> {
        [self.node_port_of(node), self.external(), self.balancer(), self.cluster()].concat()
    }
}
