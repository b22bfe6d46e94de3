//! The scene that many tests begin with: one node with a client and some pods that serve at 8080.

use serde_json::Value;
use xtask::{
    api_server::ApiServer,
    lab::{AgentSpec, Node, Pod, Server, Via},
};

use crate::{
    helpers::{Ips, web},
    world::{From, World, cluster_ips, until_answered_by},
};

/// The pods `web-1`, `web-2` and so on.
const PODS: [&str; 6] = ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6"];

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) pods: Vec<Pod>,
    pub(crate) client: Pod,
    _servers: Vec<Server>,
}

impl Scene {
    pub(crate) fn new(name: &str, from: From, pods: usize) -> Self {
        Self::with(name, from, pods, |spec| spec)
    }

    /// The same with an agent that is started otherwise.
    pub(crate) fn with(name: &str, from: From, pods: usize, start: impl Fn(AgentSpec) -> AgentSpec) -> Self {
        let mut names = vec!["client"];
        names.extend(&PODS[..pods]);
        let world = World::with(name, from, &[("node-a", &names)], &[], start);
        let pods: Vec<Pod> = PODS[..pods].iter().map(|name| world.pod(name)).collect();
        let servers = pods.iter().map(|pod| pod.serve(8080).expect("starting a server")).collect();
        Self { client: world.pod("client"), world, pods, _servers: servers }
    }

    pub(crate) fn node(&self) -> Node {
        self.world.node("node-a")
    }

    pub(crate) fn api(&self) -> &ApiServer {
        self.world.api()
    }

    pub(crate) fn all(&self) -> Vec<&Pod> {
        self.pods.iter().collect()
    }

    /// Applies a Service of the first pod and waits until it is in effect.
    pub(crate) fn served(&self, name: &str) -> Ips {
        let ips = cluster_ips();
        self.world.apply(&web(name, ips, &[&self.pods[0]]));
        self.until(ips, "web-1");
        ips
    }

    /// Waits until the Service at these addresses is answered by an endpoint, over both families.
    pub(crate) fn until(&self, ips: Ips, endpoint: &str) {
        until_answered_by(&self.client, Via::Tcp, (ips.0, 80).into(), endpoint);
        until_answered_by(&self.client, Via::Udp, (ips.1, 80).into(), endpoint);
    }

    /// Waits until the agent has seen everything that was applied before: what comes later is in effect.
    pub(crate) fn until_all_is_seen(&self) {
        let ips = cluster_ips();
        let canary: [Value; 3] = web("canary", ips, &[&self.pods[0]]);
        self.world.apply(&canary);
        self.until(ips, "web-1");
    }
}
