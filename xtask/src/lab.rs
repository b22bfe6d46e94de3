//! A cluster made of network namespaces: nodes with pods, clients outside, a router between them,
//! real servers, and the real agent. For the demo, the end-to-end tests and the benchmarks.
//!
//! ```ignore
//! let lab = Lab::with("affinity", &[("node-a", &["client", "web-1"]), ("node-b", &["web-2"])])?;
//! let _server = lab.pod("web-2").serve(8080)?;
//! let answer = lab.pod("client").run(|| ask(Via::Tcp, web_2_address))?;
//! assert_eq!(answer.endpoint, "web-2");
//! ```
//!
//! Everything is the lab's own, and goes away with it, whatever happens: network namespaces and
//! the mount namespace have no name and die with the process; agents are killed by the kernel when the
//! process dies; cgroups are removed on drop, on Ctrl-C (see [`exit_on_ctrl_c`]), and after a SIGKILL
//! by the next lab.

mod addr;
mod agent;
mod bpf;
mod capture;
mod cgroup;
mod client;
mod features;
mod interrupt;
mod links;
mod load;
mod log;
mod manifests;
mod mounts;
mod netlink;
mod netns;
mod node;
pub mod objects;
mod place;
mod raw;
mod sctp;
mod server;
mod session;
mod stream;
mod sys;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};

pub use self::addr::{Addresses, mapped};
pub use self::agent::{Agent, AgentSpec};
pub use self::bpf::AttachedProgram;
pub use self::capture::Capture;
pub use self::client::{Answer, Failure, Step, TcpSession, UdpSession, Via, ask, ask_within};
pub use self::features::Feature;
pub use self::interrupt::{exit_on_ctrl_c, wait_if_stopping};
pub use self::links::{ETH0, Network, Offload};
pub use self::load::{Load, LoadReport, LoadSpec};
pub use self::log::{Log, LogLine};
pub use self::manifests::Manifests;
pub use self::node::{Node, Pod, SecondLink};
pub use self::place::Place;
pub use self::raw::{PacketSocket, RawSender};
pub use self::sctp::{SctpServer, SctpSession, SctpSocketServer};
pub use self::server::Server;
pub use self::stream::{Stream, StreamReport};

use self::mounts::Mounts;
use self::node::Router;
use self::session::Ticket;

/// A cluster made of network namespaces.
#[derive(Debug)]
pub struct Lab {
    // Handles that are still held keep the ticket, and with it the cgroups, until they go.
    nodes: Mutex<BTreeMap<String, Node>>,
    pods: Mutex<BTreeMap<String, Pod>>,
    node_ids: AtomicU8,
    outside_ids: AtomicU8,
    router: Router,
    mounts: Arc<Mounts>,
    ticket: Arc<Ticket>,
}

impl Lab {
    /// An empty lab; the name only shows in the names of its cgroups and folders.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root (it makes network namespaces and cgroups): run this with sudo"
        );
        let ticket = Arc::new(Ticket::take(name)?);
        Ok(Self {
            nodes: Mutex::default(),
            pods: Mutex::default(),
            node_ids: AtomicU8::new(0),
            outside_ids: AtomicU8::new(0),
            router: Router::new(&ticket).context("making the lab's router")?,
            mounts: Arc::new(Mounts::new()?),
            ticket,
        })
    }

    /// A lab with these nodes, each with these pods. Ids, and so addresses, follow the order: the
    /// second pod of the first node is 10.244.1.2.
    pub fn with(name: &str, nodes: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        let lab = Self::new(name)?;
        for (node, pods) in nodes {
            let node = lab.add_node(node)?;
            for pod in *pods {
                lab.add_pod(&node, pod)?;
            }
        }
        Ok(lab)
    }

    /// The same, but each node's `eth0` is a VLAN on a link without addresses, and each VLAN has another number: what goes
    /// over that link without the right tag is lost.
    pub fn with_vlans(name: &str, nodes: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        let lab = Self::new(name)?;
        for (id, (node, pods)) in (100..).zip(nodes) {
            let node = lab.add_node_by(node, Some(id))?;
            for pod in *pods {
                lab.add_pod(&node, pod)?;
            }
        }
        Ok(lab)
    }

    /// Adds a node and connects it to the router.
    pub fn add_node(&self, name: &str) -> anyhow::Result<Node> {
        self.add_node_by(name, None)
    }

    fn add_node_by(&self, name: &str, vlan: Option<u16>) -> anyhow::Result<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!nodes.contains_key(name), "the lab has a node {name} already");
        let id = node::next_id(&self.node_ids).context("no room for another node")?;
        let node = Node::new(name, id, vlan, &self.router, &self.mounts, &self.ticket)
            .with_context(|| format!("adding the node {name} to the lab"))?;
        nodes.insert(name.to_owned(), node.clone());
        Ok(node)
    }

    /// Adds a pod to a node. Its name is unique in the lab.
    pub fn add_pod(&self, node: &Node, name: &str) -> anyhow::Result<Pod> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!pods.contains_key(name), "the lab has a pod {name} already");
        let pod = node.add_pod(name).with_context(|| format!("adding the pod {name} to the lab"))?;
        pods.insert(name.to_owned(), pod.clone());
        Ok(pod)
    }

    /// Adds a client outside of the cluster, connected to the router.
    pub fn add_outside(&self, name: &str) -> anyhow::Result<Place> {
        let id = node::next_id(&self.outside_ids).context("no room for another client")?;
        self.router.outside(name, id, &self.ticket).with_context(|| format!("adding the client {name}"))
    }

    /// Connects a node to the router once more.
    pub fn add_second_link(&self, node: &Node) -> anyhow::Result<SecondLink> {
        let added = self.router.connect_again(node);
        added.with_context(|| format!("adding a second link to {}", node.name()))
    }

    /// Adds a VLAN to a node's link, over which it is connected to the router once more. It is `eth1` there.
    pub fn add_vlan(&self, node: &Node, id: u16) -> anyhow::Result<SecondLink> {
        let added = self.router.connect_by_vlan(node, id);
        added.with_context(|| format!("adding the VLAN {id} to the link of {}", node.name()))
    }

    /// Makes the router send packets for a network to a node.
    pub fn route_to(&self, node: &Node, network: Network) -> anyhow::Result<()> {
        self.router().route(network, node.link(), node.addresses().like(network.0))
    }

    /// The router between the nodes and the clients outside.
    #[must_use]
    pub fn router(&self) -> &Place {
        self.router.place()
    }

    /// A folder of manifests that goes away with the lab even where destructors do not run.
    pub fn manifests(&self) -> anyhow::Result<Manifests> {
        Manifests::below(&self.ticket.scratch)
    }

    /// The node of this name.
    ///
    /// # Panics
    /// When the lab has none.
    #[must_use]
    pub fn node(&self, name: &str) -> Node {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(name).unwrap_or_else(|| panic!("the lab has no node {name}")).clone()
    }

    /// The pod of this name.
    ///
    /// # Panics
    /// When the lab has none.
    #[must_use]
    pub fn pod(&self, name: &str) -> Pod {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(name).unwrap_or_else(|| panic!("the lab has no pod {name}")).clone()
    }
}

/// Whether tests that need the lab can run. Without root they are skipped, and say so.
///
/// # Panics
/// Without root when the environment variable CI is set: there, a skipped test is a failed one.
#[must_use]
pub fn available() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI is set, and the tests of the lab need root");
        eprintln!("skipped: the tests of the lab need root");
    }
    root
}
