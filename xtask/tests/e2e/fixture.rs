//! What most tests serve: a dual-stack Service at port 80, TCP and UDP, with pods that listen on 8080.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde_json::Value;
use xtask::lab::{
    Place, Pod, Server, Via, ask_within,
    objects::{EndpointBuilder, ServiceBuilder, SliceBuilder, endpoint, service, slice},
};

use crate::world::{TRY, World, answers, cluster_ips, eventually};

/// The port of the pods.
pub(crate) const TARGET: u16 = 8080;

/// So many requests in a row tell which endpoints are used: one of two is missed once in 8 million.
const ENOUGH: u32 = 24;

/// A dual-stack Service `name` at port 80, TCP and UDP, of these pods at 8080; with its slices.
pub(crate) fn web(name: &str, addresses: (Ipv4Addr, Ipv6Addr), pods: &[&Pod]) -> Vec<Value> {
    Web::at(name, addresses).of(pods)
}

/// The Service, by name and address.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    name: String,
    /// Where it is reached.
    pub(crate) v4: SocketAddr,
    pub(crate) v6: SocketAddr,
}

/// An endpoint in both families.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    v4: EndpointBuilder,
    v6: EndpointBuilder,
}

impl Web {
    /// At addresses of its own.
    pub(crate) fn new(name: &str) -> Self {
        Self::at(name, cluster_ips())
    }

    pub(crate) fn at(name: &str, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Self {
        Self { name: name.to_owned(), v4: (v4, 80).into(), v6: (v6, 80).into() }
    }

    pub(crate) fn both(&self) -> [SocketAddr; 2] {
        [self.v4, self.v6]
    }

    /// The Service, to be changed and built.
    pub(crate) fn service(&self) -> ServiceBuilder {
        self.bare().port("tcp", "TCP", 80, TARGET).port("udp", "UDP", 80, TARGET)
    }

    /// The Service without a port.
    pub(crate) fn bare(&self) -> ServiceBuilder {
        service("default", &self.name).cluster_ip(self.v4.ip()).cluster_ip(self.v6.ip())
    }

    /// Its slices, one for each family.
    pub(crate) fn slices(&self, members: &[Member]) -> Vec<Value> {
        let ports = |slice: SliceBuilder| slice.port("tcp", "TCP", TARGET).port("udp", "UDP", TARGET);
        self.slices_with(members, ports)
    }

    /// Its slices with other ports, and whatever else is to be different.
    pub(crate) fn slices_with(
        &self,
        members: &[Member],
        change: impl Fn(SliceBuilder) -> SliceBuilder,
    ) -> Vec<Value> {
        let name = |family: &str| format!("{}-{family}", self.name);
        let v4 = slice("default", &name("4"), &self.name).endpoints(members.iter().map(|m| m.v4.clone()));
        let v6 = slice("default", &name("6"), &self.name).endpoints(members.iter().map(|m| m.v6.clone()));
        vec![change(v4).build(), change(v6).build()]
    }

    /// The Service and the slices of these pods.
    pub(crate) fn of(&self, pods: &[&Pod]) -> Vec<Value> {
        let members: Vec<Member> = pods.iter().map(|pod| Member::pod(pod)).collect();
        [vec![self.service().build()], self.slices(&members)].concat()
    }
}

impl Member {
    /// A ready endpoint at the addresses of a place, on a node. The place may be the node itself.
    pub(crate) fn new(place: &Place, node: &str) -> Self {
        let addresses = place.addresses();
        Self { v4: endpoint(addresses.v4).on(node), v6: endpoint(addresses.v6).on(node) }
    }

    pub(crate) fn pod(pod: &Pod) -> Self {
        Self::new(pod, pod.node_name())
    }

    /// The same, changed.
    pub(crate) fn with(self, change: impl Fn(EndpointBuilder) -> EndpointBuilder) -> Self {
        Self { v4: change(self.v4), v6: change(self.v6) }
    }
}

/// Servers in pods of a world, at [`TARGET`].
pub(crate) fn serve(world: &World, pods: &[&str]) -> Vec<Server> {
    pods.iter().map(|pod| world.pod(pod).serve(TARGET).expect("starting a server")).collect()
}

/// Waits until exactly these endpoints answer at both addresses, for TCP and UDP.
pub(crate) fn until_served_by(place: &Place, web: &Web, endpoints: &[&str]) {
    for (via, to) in [(Via::Tcp, web.v4), (Via::Udp, web.v6), (Via::UdpConnected, web.v4), (Via::Tcp, web.v6)]
    {
        until_exactly(place, via, to, endpoints);
    }
}

/// Waits until exactly these endpoints answer.
pub(crate) fn until_exactly(place: &Place, via: Via, to: SocketAddr, endpoints: &[&str]) {
    let expected: BTreeSet<&str> = endpoints.iter().copied().collect();
    let what = format!("answers at {to} in {} of {expected:?}", place.name());
    eventually(&what, || {
        let seen = place.run(|| {
            let mut seen = BTreeSet::new();
            for _ in 0..ENOUGH {
                seen.insert(ask_within(via, to, TRY).map_err(|failure| failure.to_string())?.endpoint);
            }
            Ok::<_, String>(seen)
        })?;
        let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    // Not by luck: what is wrong stays wrong, and shows now.
    let seen = answers(place, via, to, ENOUGH);
    assert!(seen.keys().all(|endpoint| expected.contains(endpoint.as_str())), "{what}: {seen:?}");
}
