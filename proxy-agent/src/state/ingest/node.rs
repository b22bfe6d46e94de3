use k8s_openapi::api::core::v1 as core;

use super::{Ingest, address};
use crate::state::Node;

/// Label with the zone that a node is in.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Taint, of whatever effect, of a node that the cluster autoscaler is about to delete.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

impl Ingest {
    /// What the agent keeps of a Node: its zone, its addresses, and whether it is about to go
    /// (KUBE-PROXY.md 4.6 and 4.8).
    pub fn node(&mut self, object: &core::Node) -> Node {
        let zone = object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
        let mut taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let mut node = Node {
            leaving: object.metadata.deletion_timestamp.is_some()
                || taints.any(|taint| taint.key == TO_BE_DELETED_TAINT),
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
