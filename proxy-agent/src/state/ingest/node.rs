use k8s_openapi::api::core::v1 as core;

use super::{Ingest, address};
use crate::state::Node;

/// Label with the zone that a node is in.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

impl Ingest {
    /// What the agent keeps of a Node: its zone and its addresses (KUBE-PROXY.md 4.6).
    pub fn node(&mut self, object: &core::Node) -> Node {
        let zone = object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
        let mut node = Node {
            zone: zone.filter(|zone| !zone.is_empty()).map(|zone| self.string(zone)),
            ..Node::default()
        };
        let status = object.status.as_ref().and_then(|status| status.addresses.as_deref());
        let entries = status.unwrap_or_default();
        for kind in ["InternalIP", "ExternalIP"] {
            for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.type_ == kind) {
                let field = format!("status.addresses[{index}].address");
                let Some(address) = address(&field, &entry.address, &mut node.problems) else { continue };
                if !node.addresses.contains(&address) {
                    node.addresses.push(address);
                }
            }
        }
        node
    }
}
