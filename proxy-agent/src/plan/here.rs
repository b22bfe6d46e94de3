use std::{borrow::Cow, net::IpAddr};

use proxy_common::Family;

use super::PlannerConfig;
use crate::state::{Node, Store, family_of};

/// What planning needs to know of the node that is planned for. Worked out anew only when what the store says
/// of the node has changed: a node may have hundreds of addresses, and a change of one endpoint should not
/// pay for them.
#[derive(Debug)]
pub(super) struct Here {
    node: Option<Node>,
    /// Sorted; `None` while nobody has looked at the links.
    local_addresses: Option<Vec<IpAddr>>,
    node_ports: Vec<IpAddr>,
    health_checks: Vec<IpAddr>,
    external_ips: bool,
}

impl Here {
    /// Takes over what the store says.
    pub(super) fn refresh(&mut self, config: &PlannerConfig, store: &Store) {
        let (node, local) = (with_address(store.node(), config.node_address), store.local_addresses());
        if self.node.as_ref() != node.as_deref() || self.local_addresses.as_deref() != local {
            *self = Self::new(config, node.as_deref(), local);
        }
    }

    /// What `config` makes of a node.
    pub(super) fn new(config: &PlannerConfig, node: Option<&Node>, local: Option<&[IpAddr]>) -> Self {
        let mut node_ports = config.node_port_addresses.of(node, local);
        node_ports.retain(|address| config.loopback_node_ports || !address.is_loopback());
        Self {
            node: node.cloned(),
            local_addresses: local.map(<[IpAddr]>::to_vec),
            health_checks: config.node_port_addresses.listening(&node_ports),
            node_ports,
            external_ips: config.external_ips,
        }
    }

    /// The addresses that serve node ports.
    pub(super) fn node_ports(&self) -> &[IpAddr] {
        &self.node_ports
    }

    /// The addresses to listen on for load balancers that ask for the health of Services.
    pub(super) fn health_checks(&self) -> &[IpAddr] {
        &self.health_checks
    }

    /// Whether Services are served at their external IPs.
    pub(super) fn external_ips(&self) -> bool {
        self.external_ips
    }

    /// The zone that the node is in.
    pub(super) fn zone(&self) -> Option<&str> {
        self.node.as_ref()?.zone.as_deref()
    }

    /// The node's own address of a family.
    pub(super) fn primary(&self, family: Family) -> Option<IpAddr> {
        let addresses = self.node.iter().flat_map(|node| &node.addresses).copied();
        addresses.into_iter().find(|address| family_of(*address) == family)
    }

    /// Whether it is known which addresses are on the node's links.
    pub(super) fn are_links_known(&self) -> bool {
        self.local_addresses.is_some()
    }

    /// Whether an address is one of the node's own.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        match &self.local_addresses {
            Some(sorted) => sorted.binary_search(&address).is_ok(),
            None => self.node.as_ref().is_some_and(|node| node.addresses.contains(&address)),
        }
    }
}

/// A node whose first address is `address`, where one was given.
fn with_address(node: Option<&Node>, address: Option<IpAddr>) -> Option<Cow<'_, Node>> {
    let Some(address) = address else { return node.map(Cow::Borrowed) };
    let mut node = node.cloned().unwrap_or_default();
    node.addresses.retain(|other| *other != address);
    node.addresses.insert(0, address);
    Some(Cow::Owned(node))
}
