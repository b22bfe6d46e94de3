//! A node with the agent, Services with node ports, and a client outside.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    api_server::ApiServer,
    bench::{READY_WITHIN, cluster},
    lab::{
        Agent, AgentSpec, Lab, Offload, Place, Via, ask,
        objects::{ServiceBuilder, endpoint, service, slice},
    },
};

/// Node port of the Service whose endpoints are on the other node, and what they listen on.
pub(super) const FAR: u16 = 30_001;
/// Node port of the Service whose endpoint is on the node.
pub(super) const NEAR: u16 = 30_002;
pub(super) const TARGET: u16 = 8080;

/// Endpoints of the far Service. One alone would not do: a flow to it takes one of the node's source ports.
const FAR_ENDPOINTS: u8 = 32;

pub(super) struct Setting {
    // In the order in which they are to end.
    pub(super) agent: Agent,
    _api: ApiServer,
    pub(super) outside: Place,
    pub(super) lab: Lab,
}

impl Setting {
    pub(super) fn new(agent: &Path, services: usize, arguments: &[&str]) -> Result<Self> {
        let lab = Lab::with("bench", &[("node-a", &["near"]), ("node-b", &["far"])])?;
        let outside = lab.add_outside("outside")?;
        let node = lab.node("node-a");
        for (place, link) in [(lab.router(), node.link()), (&*node, "eth0")] {
            place.set_offload(link, Offload::TransmitChecksum, false)?;
            place.set_offload(link, Offload::ReceiveMerge, true)?;
        }
        let api = node.run(ApiServer::on_loopback)?;
        api.apply(node.object().build())?;
        for (name, node_port, address) in [("far", FAR, 1), ("near", NEAR, 2)] {
            let addresses = [
                IpAddr::from(Ipv4Addr::new(10, 96, 0, address)),
                Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, address.into()).into(),
            ];
            let ports = json!([{
                "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": TARGET, "nodePort": node_port,
            }]);
            let object = addresses.into_iter().fold(service("bench", name), ServiceBuilder::cluster_ip);
            api.apply(object.kind("NodePort").spec("ports", ports).build())?;
            let pod = lab.pod(name);
            for (family, address) in ["4", "6"].into_iter().zip(pod.addresses().both()) {
                let more = (0..if name == "far" { FAR_ENDPOINTS } else { 1 }).map(|more| plus(address, more));
                let endpoints = more.map(|address| endpoint(address).on(pod.node_name()));
                let slice = slice("bench", &format!("{name}-{family}"), name);
                api.apply(slice.port("tcp", "TCP", TARGET).endpoints(endpoints).build())?;
            }
        }
        for object in cluster::plain(services.saturating_sub(1), 2).iter() {
            api.apply(object)?;
        }
        let folder = tempfile::tempdir().context("making a folder for the kubeconfig")?;
        let kubeconfig = folder.path().join("kubeconfig");
        api.kubeconfig(&kubeconfig)?;
        let spec = AgentSpec::with_kubeconfig(agent, &node, &kubeconfig).arg("--log-level").arg("debug");
        let agent = arguments.iter().fold(spec, |spec, argument| spec.arg(*argument)).start()?;
        agent.wait_ready(READY_WITHIN)?;
        let setting = Self { agent, _api: api, outside, lab };
        setting.meet_neighbours()?;
        Ok(setting)
    }

    /// The node's address and this port.
    pub(super) fn node_port(&self, family: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.lab.node("node-a").addresses().both()[family], port)
    }

    /// After a request the kernel knows the link-layer addresses on the way.
    fn meet_neighbours(&self) -> Result<()> {
        let _server = self.lab.pod("near").serve(TARGET)?;
        for family in 0..2 {
            let to = self.node_port(family, NEAR);
            let mut tries = 0;
            while let Err(error) = self.outside.run(|| ask(Via::Tcp, to)) {
                tries += 1;
                ensure!(tries < 10, "{to} does not answer: {error}");
            }
            let far = SocketAddr::new(self.lab.pod("far").addresses().both()[family], TARGET);
            // Nobody listens; what counts is that it was sent.
            let _refused = self.lab.node("node-a").run(|| ask(Via::Tcp, far));
        }
        Ok(())
    }
}

fn plus(address: IpAddr, more: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + u32::from(more)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + u128::from(more)).into(),
    }
}
