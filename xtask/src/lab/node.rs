//! Nodes and pods of the lab.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context;

use super::addr::{Addresses, Gateway};
use super::cgroup;
use super::links::ETH0;
use super::mounts::Mounts;
use super::netns::Netns;
use super::place::Place;
use super::session::Ticket;
use super::wire::{self, Medium, Networks, Wire};

/// Errors of ICMP are tests' results, so no limit on them; no waiting for duplicate addresses, of
/// which there are none.
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// A router passes packets on, and does not ask whether it would answer the same way.
const ROUTING: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

/// A load generator goes through local ports quickly.
const CLIENT: &[(&str, &str)] = &[("ipv4/ip_local_port_range", "10000 65000"), ("ipv4/tcp_tw_reuse", "1")];

/// What carries the VLAN that is a node's `eth0`, on the node.
const TRUNK: &str = "trunk";

/// The network between the nodes: a namespace that routes.
#[derive(Debug)]
pub(super) struct Router(Place);

impl Router {
    pub(super) fn new(lab: &Arc<Ticket>) -> anyhow::Result<Self> {
        let netns = Netns::new()?;
        netns.sysctl(EVERYWHERE)?;
        netns.sysctl(ROUTING)?;
        let addresses = Addresses::router();
        wire::loopback_up(&netns, Some(addresses))?;
        Ok(Self(Place::new("router", addresses, "", netns, None, None, Arc::clone(lab))))
    }

    pub(super) fn place(&self) -> &Place {
        &self.0
    }

    /// A second wire to a node, which is `eth1` there.
    pub(super) fn connect_again(&self, node: &Node) -> anyhow::Result<SecondLink> {
        self.lay_second(node, Medium::Veth)
    }

    /// A VLAN on the wire to a node, which is `eth1` there.
    pub(super) fn connect_by_vlan(&self, node: &Node, id: u16) -> anyhow::Result<SecondLink> {
        self.lay_second(node, Medium::Vlan { id, upper: node.link().to_owned(), lower: ETH0 })
    }

    fn lay_second(&self, node: &Node, medium: Medium) -> anyhow::Result<SecondLink> {
        let link =
            SecondLink { name: format!("{}-2", node.link()), addresses: Addresses::node_again(node.id) };
        let wire = Wire {
            medium,
            upper: self.0.netns(),
            upper_addresses: Addresses::router(),
            upper_name: link.name.clone(),
            gateway: Gateway::OF_NODES,
            lower: node.netns(),
            lower_name: "eth1",
            metric: 2000,
            lower_addresses: link.addresses,
            behind: None,
        };
        wire.lay()?;
        Ok(link)
    }

    /// Connects a new namespace to the router.
    fn connect(
        &self,
        name: &str,
        addresses: Addresses,
        behind: Option<Networks>,
        settings: &[(&str, &str)],
        vlan: Option<u16>,
    ) -> anyhow::Result<Netns> {
        let netns = Netns::new()?;
        netns.sysctl(EVERYWHERE)?;
        netns.sysctl(settings)?;
        wire::loopback_up(&netns, None)?;
        let medium = match vlan {
            None => Medium::Veth,
            Some(id) => {
                let upper = format!("{name}-t");
                wire::trunk(self.0.netns(), &upper, &netns, TRUNK).context("laying a trunk")?;
                Medium::Vlan { id, upper, lower: TRUNK }
            }
        };
        let wire = Wire {
            medium,
            upper: self.0.netns(),
            upper_addresses: Addresses::router(),
            upper_name: name.to_owned(),
            gateway: Gateway::OF_NODES,
            lower: &netns,
            lower_name: ETH0,
            metric: 0,
            lower_addresses: addresses,
            behind,
        };
        wire.lay()?;
        Ok(netns)
    }

    /// A client outside of the cluster.
    pub(super) fn outside(&self, name: &str, id: u8, lab: &Arc<Ticket>) -> anyhow::Result<Place> {
        let addresses = Addresses::outside(id);
        let link = format!("out-{id}");
        let netns = self.connect(&link, addresses, None, CLIENT, None)?;
        Ok(Place::new(name, addresses, &link, netns, None, None, Arc::clone(lab)))
    }
}

/// A node: the host's network namespace, a cgroup where its agent attaches, and a bpffs where it
/// pins. [`Place`]'s methods run things in the host's network.
#[derive(Clone, Debug)]
pub struct Node {
    host: Place,
    id: u8,
    pods: Arc<AtomicU8>,
    cgroup: PathBuf,
    bpffs: PathBuf,
    lab: Arc<Ticket>,
}

impl Node {
    pub(super) fn new(
        name: &str,
        id: u8,
        vlan: Option<u16>,
        router: &Router,
        mounts: &Arc<Mounts>,
        lab: &Arc<Ticket>,
    ) -> anyhow::Result<Self> {
        let addresses = Addresses::node(id);
        let network = Addresses::pod(id, 0);
        let behind = Networks { v4: (network.v4, 24), v6: (network.v6, 64) };
        let link = format!("node-{id}");
        let netns = router.connect(&link, addresses, Some(behind), ROUTING, vlan)?;
        let cgroup = lab.cgroup.join(name);
        cgroup::make_threaded(&cgroup)?;
        let bpffs = lab.scratch.join(name).join("bpffs");
        mounts.add_bpffs(&bpffs)?;
        let host = Place::new(
            name,
            addresses,
            &link,
            netns,
            Some(cgroup.clone()),
            Some(Arc::clone(mounts)),
            Arc::clone(lab),
        );
        Ok(Self { host, id, pods: Arc::default(), cgroup, bpffs, lab: Arc::clone(lab) })
    }

    /// The cgroup of everything on this node.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The folder on this node's bpffs for the agent's pins. Only threads and processes that were
    /// started on the node see it.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.bpffs.join("ferroute")
    }

    /// The addresses of its pods, as networks.
    #[must_use]
    pub fn pod_networks(&self) -> [String; 2] {
        let network = Addresses::pod(self.id, 0);
        [format!("{}/24", network.v4), format!("{}/64", network.v6)]
    }

    pub(super) fn add_pod(&self, name: &str) -> anyhow::Result<Pod> {
        let id =
            next_id(&self.pods).with_context(|| format!("no room for another pod on {}", self.name()))?;
        let addresses = Addresses::pod(self.id, id);
        let netns = Netns::new()?;
        netns.sysctl(EVERYWHERE)?;
        netns.sysctl(CLIENT)?;
        wire::loopback_up(&netns, None)?;
        let link = format!("pod-{id}");
        let wire = Wire {
            medium: Medium::Veth,
            upper: self.netns(),
            upper_addresses: self.addresses(),
            upper_name: link.clone(),
            gateway: Gateway::OF_PODS,
            lower: &netns,
            lower_name: ETH0,
            metric: 0,
            lower_addresses: addresses,
            behind: None,
        };
        wire.lay()?;
        let place =
            Place::new(name, addresses, &link, netns, Some(self.cgroup.clone()), None, Arc::clone(&self.lab));
        Ok(Pod { place, node: self.name().to_owned() })
    }
}

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.host
    }
}

/// A node's second link to the router.
#[derive(Clone, Debug)]
pub struct SecondLink {
    /// Its name on the router; on the node it is `eth1`.
    pub name: String,
    /// The node's addresses there.
    pub addresses: Addresses,
}

/// A pod: a network namespace of its own behind its node. Its threads are in the node's cgroup.
#[derive(Clone, Debug)]
pub struct Pod {
    place: Place,
    node: String,
}

impl Pod {
    /// The name of its node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.node
    }
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// Ids are part of addresses: from 1 to 250.
pub(super) fn next_id(last: &AtomicU8) -> Option<u8> {
    let next = |last: u8| (last < 250).then_some(last + 1);
    last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(|last| last + 1)
}
