//! SCTP between sockets of the kernel's, which leave checksums to the network card, and tell the addresses that they have.
//! Only where the kernel has the protocol; raw sockets do not work beside it.

use std::net::SocketAddr;

use xtask::lab::{Feature, Place, SctpSocketServer, Via, available};

use super::{
    exposed::{Exposed, PORT},
    probe::{Meets, Probe, answer_of, check, probes},
    stage::Stage,
};
use crate::fixture::Member;

/// Where the kernel's sockets are served: raw ones are at the other port.
const PORT_OF_PODS: u16 = 9090;

struct Service {
    exposed: Exposed,
    endpoint: Option<Place>,
}

impl Service {
    fn new(stage: &Stage, endpoint: Option<&str>) -> Self {
        let exposed = Exposed::new(endpoint.unwrap_or("none"));
        let [external, balancer] = [exposed.external(), exposed.balancer()];
        let service = exposed.web.bare().kind("LoadBalancer").port("sctp", "SCTP", PORT, PORT_OF_PODS);
        let service = service.node_port(exposed.node_port);
        let service = external.iter().fold(service, |service, to| service.external_ip(to.ip()));
        let service = balancer.iter().fold(service, |service, to| service.balancer_ip(to.ip()));
        let members: Vec<Member> = endpoint.iter().map(|name| stage.member(name)).collect();
        stage.apply(&[service.build()]);
        stage.apply(&exposed.web.slices_with(&members, |slice| slice.port("sctp", "SCTP", PORT_OF_PODS)));
        Self { exposed, endpoint: endpoint.map(|name| stage.place(name)) }
    }

    fn probes(&self, from: &Place, tos: &[SocketAddr], through: &Place) -> Vec<Probe> {
        probes(from, &[Via::SctpSocket], tos, |to| match &self.endpoint {
            Some(endpoint) => answer_of(endpoint, through)(to),
            None => Meets::Refused,
        })
    }
}

fn every_way(name: &str, arguments: &[&str]) {
    let mut stage = Stage::with(name, |spec| spec.args(arguments));
    stage.prepare_for_xdp();
    let serve = |name: &&str| stage.place(name).serve_sctp_sockets(PORT_OF_PODS).expect("a server");
    let _servers: Vec<SctpSocketServer> = ["web-a", "web-b"].iter().map(serve).collect();
    let (client, pod, node) = (stage.outside.clone(), stage.place("client-a"), stage.place("node-a"));
    let mut all = Vec::new();
    for endpoint in [Some("web-a"), Some("web-b"), None] {
        let service = Service::new(&stage, endpoint);
        let exposed = &service.exposed;
        let outward = [exposed.node_port_of(&node), exposed.external(), exposed.balancer()].concat();
        let through = if endpoint == Some("web-b") { &node } else { &client };
        all.extend(service.probes(&client, &outward, through));
        all.extend(service.probes(&pod, &exposed.all_of(&node), &pod));
    }
    check(&all);
}

#[test]
fn kernel_sctp_meets_what_raw_sockets_meet() {
    if !available() || !Feature::Sctp.is_there() {
        return;
    }
    every_way("kernel-sctp", &[]);
}

#[test]
fn kernel_sctp_with_xdp_in_the_driver() {
    if !available() || !Feature::Sctp.is_there() {
        return;
    }
    every_way("kernel-sctp-xdp", &["--xdp", "native"]);
}
