//! Every kind of frontend, from every place a client can stand, to every place an endpoint can be, under either
//! external traffic policy; over both families and all three protocols. KUBE-PROXY.md 1.3 to 1.8 and 1.10.

use std::net::{IpAddr, SocketAddr};

use xtask::lab::{Feature, Offload, Place, Via, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{Meets, Probe, answer_of, check, probes},
    stage::Stage,
};
use crate::fixture::Member;

/// What the socket path serves.
const SOCKETS: [Via; 2] = [Via::Tcp, Via::Udp];

/// Where the only endpoint of a Service is: pods, hosts, nowhere.
const ENDPOINTS: [Option<&str>; 5] = [Some("web-a"), Some("web-b"), Some("node-a"), Some("node-b"), None];

/// A Service of one endpoint or none.
struct Case {
    exposed: Exposed,
    endpoint: Option<&'static str>,
    local: bool,
}

impl Case {
    /// All of them, applied.
    fn all(stage: &Stage, endpoints: &[Option<&'static str>]) -> Vec<Self> {
        let mut cases = Vec::new();
        for local in [false, true] {
            for endpoint in endpoints {
                let policy = if local { "local" } else { "cluster" };
                let exposed = Exposed::new(&format!("{}-{policy}", endpoint.unwrap_or("none")));
                let members: Vec<Member> = endpoint.iter().map(|name| stage.member(name)).collect();
                let service = exposed.service();
                let service = if local { service.external_local() } else { service };
                stage.apply(&[service.build()]);
                stage.apply(&exposed.slices(&members));
                cases.push(Self { exposed, endpoint: *endpoint, local });
            }
        }
        cases
    }

    /// What packets meet that come to `entry` from elsewhere.
    fn meets_elsewhere(&self, stage: &Stage, client: &Place, entry: &str) -> impl Fn(IpAddr) -> Meets {
        let endpoint = self.endpoint.map(|name| (stage.place(name), stage.node_of(name) == entry));
        let (client, entry, local) = (client.clone(), stage.place(entry), self.local);
        move |to| match &endpoint {
            None => Meets::Refused,
            // On the node itself the source stays, whatever the policy.
            Some((endpoint, true)) => answer_of(endpoint, &client)(to),
            Some((_, false)) if local => Meets::Silence,
            Some((endpoint, false)) => answer_of(endpoint, &entry)(to),
        }
    }

    /// What clients of the cluster meet at frontends of their own node: every endpoint, and no other address.
    fn meets_at_home(&self, stage: &Stage, client: &Place) -> impl Fn(IpAddr) -> Meets {
        let (endpoint, client) = (self.endpoint.map(|name| stage.place(name)), client.clone());
        move |to| match &endpoint {
            None => Meets::Refused,
            Some(endpoint) => answer_of(endpoint, &client)(to),
        }
    }

    /// The client outside of the cluster.
    fn outside(&self, stage: &Stage) -> Vec<Probe> {
        let (a, b) = (stage.node("node-a"), stage.node("node-b"));
        let Self { exposed, .. } = self;
        let outward = [exposed.node_port_of(&a), exposed.external(), exposed.balancer()].concat();
        let cluster = Self { exposed: exposed.clone(), local: false, ..*self };
        let client = &stage.outside;
        [
            probes(client, &VIAS, &outward, self.meets_elsewhere(stage, client, "node-a")),
            probes(client, &VIAS, &exposed.node_port_of(&b), self.meets_elsewhere(stage, client, "node-b")),
            // The policy is not for cluster IPs.
            probes(client, &VIAS, &exposed.cluster(), cluster.meets_elsewhere(stage, client, "node-a")),
        ]
        .concat()
    }

    /// A pod on node-a.
    fn pod(&self, stage: &Stage) -> Vec<Probe> {
        let (a, b) = (stage.node("node-a"), stage.node("node-b"));
        let pod = stage.place("client-a");
        let others = self.exposed.node_port_of(&b);
        [
            probes(&pod, &VIAS, &self.exposed.all_of(&a), self.meets_at_home(stage, &pod)),
            probes(&pod, &VIAS, &others, self.meets_elsewhere(stage, &pod, "node-b")),
        ]
        .concat()
    }

    /// The host of node-a.
    fn host(&self, stage: &Stage) -> Vec<Probe> {
        let (a, b) = (stage.node("node-a"), stage.node("node-b"));
        let Self { exposed, .. } = self;
        let localhost: Vec<SocketAddr> = ["127.0.0.1", "::1"]
            .map(|ip| SocketAddr::new(ip.parse().expect("an address"), exposed.node_port))
            .into();
        let from_uplink = [exposed.external(), exposed.balancer(), exposed.cluster()].concat();
        let mut all = [
            probes(&a, &SOCKETS, &exposed.all_of(&a), self.meets_at_home(stage, &a)),
            probes(&a, &SOCKETS, &localhost, self.meets_at_home(stage, &a)),
            probes(&a, &VIAS, &exposed.node_port_of(&b), self.meets_elsewhere(stage, &a, "node-b")),
        ]
        .concat();
        // SCTP of the host is seen where it leaves the node: not on the way to the node's own addresses, and the host
        // itself is no endpoint of it.
        if self.endpoint != Some("node-a") {
            all.extend(probes(&a, &[Via::Sctp], &from_uplink, self.meets_at_home(stage, &a)));
        }
        all
    }
}

#[test]
fn every_frontend_from_everywhere_to_every_endpoint() {
    if !available() {
        return;
    }
    let stage = Stage::new("matrix");
    let cases = Case::all(&stage, &ENDPOINTS);
    let of = |case: &Case| [case.outside(&stage), case.pod(&stage), case.host(&stage)].concat();
    check(&cases.iter().flat_map(of).collect::<Vec<_>>());
}

/// What comes from outside, and SCTP of pods, with agents that are started so.
fn short(name: &str, arguments: &[&str]) {
    let mut stage = Stage::with(name, |spec| spec.args(arguments));
    stage.prepare_for_xdp();
    check_short(&stage);
    let driven = stage.counter("node-a", "xdpForwarded") > 0;
    assert_eq!(driven, arguments.contains(&"--xdp") && !arguments.contains(&"off"), "what XDP has forwarded");
}

fn check_short(stage: &Stage) {
    let cases = Case::all(stage, &[Some("web-a"), Some("web-b"), Some("node-a"), None]);
    let of = |case: &Case| {
        let mut probes = case.outside(stage);
        probes.extend(case.pod(stage).into_iter().filter(|probe| probe.via == Via::Sctp));
        probes
    };
    check(&cases.iter().flat_map(of).collect::<Vec<_>>());
}

#[test]
fn the_same_with_tcx() {
    if !available() {
        return;
    }
    short("tcx", &["--tc", "tcx", "--xdp", "off"]);
}

#[test]
fn the_same_with_clsact() {
    if !available() {
        return;
    }
    short("clsact", &["--tc", "clsact", "--xdp", "off"]);
}

#[test]
fn the_same_with_xdp_in_the_driver() {
    if !available() {
        return;
    }
    short("xdp-native", &["--xdp", "native"]);
}

#[test]
fn the_same_with_generic_xdp() {
    if !available() {
        return;
    }
    short("xdp-generic", &["--xdp", "generic"]);
}

/// The same with nodes whose only uplink is a VLAN.
fn on_vlans(name: &str, arguments: &[&str]) -> Stage {
    let stage = Stage::with_vlans(name, |spec| spec.args(arguments));
    for node in ["node-a", "node-b"].map(|name| stage.node(name)) {
        // As for XDP on other links; but a frame that is sent back goes by the VLAN's parent, as any other.
        let router = stage.world.lab().router();
        router.set_offload(node.link(), Offload::TransmitChecksum, false).expect("finishing checksums");
    }
    check_short(&stage);
    stage
}

#[test]
fn the_same_with_vlans_for_uplinks() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    on_vlans("vlans", &[]);
}

#[test]
fn the_same_with_vlans_and_clsact() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    on_vlans("vlans-clsact", &["--tc", "clsact"]);
}

#[test]
fn the_same_with_vlans_that_cannot_have_xdp_in_the_driver() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    let stage = on_vlans("vlans-native", &["--xdp", "native"]);
    assert_eq!(stage.counter("node-a", "xdpForwarded"), 0, "no driver has seen them without their tags");
}

#[test]
fn the_same_with_vlans_and_generic_xdp() {
    if !available() || !Feature::Vlan.is_there() {
        return;
    }
    let stage = on_vlans("vlans-generic", &["--xdp", "generic"]);
    assert!(stage.counter("node-a", "xdpForwarded") > 0);
}

#[test]
fn the_same_with_programs_on_every_workload_link() {
    if !available() {
        return;
    }
    short("workload", &["--workload-links", "always"]);
}
