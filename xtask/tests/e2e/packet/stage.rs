//! Two nodes with a client and an endpoint each, hosts that serve too, and a client outside.

use serde_json::Value;
use xtask::lab::{AgentSpec, AttachedProgram, Capture, Lab, Node, Offload, Place, SctpServer, Server};

use super::exposed::NETWORKS;
use crate::{
    fixture::{Member, TARGET},
    helpers::services,
    world::{From, World},
};

const NODES: &[(&str, &[&str])] = &[("node-a", &["client-a", "web-a"]), ("node-b", &["client-b", "web-b"])];

/// `client-a` and `web-a` on `node-a`, `client-b` and `web-b` on `node-b`. The endpoints and the hosts serve
/// TCP, UDP and SCTP at [`TARGET`]. The router sends every Service's addresses to `node-a`.
pub(crate) struct Stage {
    _captures: Vec<Capture>,
    _servers: Vec<(Server, SctpServer)>,
    xdp: Vec<AttachedProgram>,
    pub(crate) world: World,
    pub(crate) outside: Place,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |spec| spec)
    }

    /// The same with agents that are started otherwise.
    pub(crate) fn with(name: &str, start: impl Fn(AgentSpec) -> AgentSpec) -> Self {
        Self::on(World::with(name, From::Manifests, NODES, &[], start))
    }

    /// The same on nodes of which each is connected by a VLAN.
    pub(crate) fn with_vlans(name: &str, start: impl Fn(AgentSpec) -> AgentSpec) -> Self {
        let lab = Lab::with_vlans(name, NODES).expect("making a lab with VLANs");
        Self::on(World::in_lab(lab, From::Manifests, NODES, &[], start))
    }

    /// The same with agents that get their objects from there.
    pub(crate) fn following(name: &str, from: From) -> Self {
        Self::on(World::new(name, from, NODES))
    }

    /// The same with a world that has these nodes and pods, and perhaps more.
    pub(crate) fn on(world: World) -> Self {
        let lab = world.lab();
        let outside = lab.add_outside("outside").expect("adding the client outside");
        let node_a = world.node("node-a");
        for network in NETWORKS {
            lab.route_to(&node_a, network).expect("routing to a node");
        }
        let nodes = ["node-a", "node-b"].map(|name| world.node(name));
        let pods = ["web-a", "web-b"].map(|name| world.pod(name));
        let endpoints: [&Place; 4] = [&pods[0], &pods[1], &nodes[0], &nodes[1]];
        let serve = |place: &Place| {
            let server = place.serve(TARGET).expect("starting a server");
            (server, place.serve_sctp(TARGET).expect("starting a server of SCTP"))
        };
        let servers = endpoints.map(serve).into();
        // At the router nothing is missed: XDP answers before the node's own end of the wire shows a frame.
        let links = [nodes[0].link(), nodes[1].link(), outside.link()];
        let capture = |link: &str| lab.router().capture(link).expect("capturing");
        let captures = links.map(capture).into();
        Self { _captures: captures, _servers: servers, xdp: Vec::new(), world, outside }
    }

    /// Makes the router's links fit for XDP at their other ends: checksums are whole, and frames are taken.
    pub(crate) fn prepare_for_xdp(&mut self) {
        for node in ["node-a", "node-b"].map(|name| self.node(name)) {
            let router = self.world.lab().router();
            router.set_offload(node.link(), Offload::TransmitChecksum, false).expect("finishing checksums");
            let pass = router.let_xdp_pass(node.link()).expect("taking frames from XDP");
            self.xdp.push(pass);
        }
    }

    /// A counter of the data path on a node.
    pub(crate) fn counter(&self, node: &str, name: &str) -> u64 {
        let counters = &services(&self.world, node)["counters"];
        counters[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {counters}"))
    }

    pub(crate) fn node(&self, name: &str) -> Node {
        self.world.node(name)
    }

    /// An endpoint by the name of its pod, or of its node for one in the host's network.
    pub(crate) fn member(&self, name: &str) -> Member {
        Member::new(&self.place(name), self.node_of(name))
    }

    /// A pod or a node.
    pub(crate) fn place(&self, name: &str) -> Place {
        if name.starts_with("node") { (*self.node(name)).clone() } else { (*self.world.pod(name)).clone() }
    }

    /// The node that a pod is on, and that a node is.
    pub(crate) fn node_of(&self, name: &str) -> &'static str {
        match name.rsplit('-').next() {
            Some("a") => "node-a",
            Some("b") => "node-b",
            _ => "node-c",
        }
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        self.world.apply(objects);
    }
}
