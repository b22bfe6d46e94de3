use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1 as discovery;
use proxy_common::Family;

use super::{Ingest, address, port, protocol};
use crate::state::{AddressType, Endpoint, EndpointSlice, Hints, SlicePort, family_of};

/// Label with the name of the Service that a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Annotation with the time of the change that made the controller write the slice.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl Ingest {
    /// What the agent keeps of an EndpointSlice (KUBE-PROXY.md 2.1).
    pub fn slice(&mut self, object: &discovery::EndpointSlice) -> EndpointSlice {
        let mut problems = Vec::new();
        let labels = object.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_LABEL)).filter(|name| !name.is_empty());
        let address_type = address_type(&object.address_type, &mut problems);
        let mut slice = EndpointSlice {
            name: self.name(&object.metadata),
            service: service.map(|name| self.string(name)),
            address_type,
            ports: Vec::new(),
            endpoints: Vec::new(),
            triggered: triggered(object, &mut problems),
            problems: Vec::new(),
        };
        if let Some(family) = address_type.family() {
            slice.ports = self.slice_ports(object, &mut problems);
            slice.endpoints = self.endpoints(object, family, &mut problems);
        }
        slice.problems = problems;
        slice
    }

    fn slice_ports(
        &mut self,
        object: &discovery::EndpointSlice,
        problems: &mut Vec<String>,
    ) -> Vec<SlicePort> {
        let entries = object.ports.as_deref().unwrap_or_default();
        let mut ports = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let Some(name) = entry.name.as_deref() else {
                problems.push(format!(
                    "ports[{index}].name is not set: the port is skipped (the slice of an unnamed Service \
                     port has the name \"\")"
                ));
                continue;
            };
            let Some(number) = entry.port else {
                problems.push(format!(
                    "ports[{index}].port is not set: the port is skipped (slices for all ports cannot be served)"
                ));
                continue;
            };
            let field = format!("ports[{index}].protocol");
            let Some(protocol) = protocol(&field, entry.protocol.as_deref(), problems) else { continue };
            let Some(port) = port(&format!("ports[{index}].port"), number, problems) else { continue };
            ports.push(SlicePort { name: self.string(name), protocol, port });
        }
        ports.shrink_to_fit();
        ports
    }

    fn endpoints(
        &mut self,
        object: &discovery::EndpointSlice,
        family: Family,
        problems: &mut Vec<String>,
    ) -> Vec<Endpoint> {
        let entries = object.endpoints.as_deref().unwrap_or_default();
        let mut endpoints = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let Some(text) = entry.addresses.first() else {
                problems.push(format!("endpoints[{index}].addresses is empty: the endpoint is skipped"));
                continue;
            };
            let field = format!("endpoints[{index}].addresses[0]");
            let Some(address) = address(&field, text, problems) else { continue };
            if family_of(address) != family {
                problems.push(format!(
                    "{field} {text:?} is not of addressType {}: it is skipped",
                    object.address_type
                ));
                continue;
            }
            let conditions = entry.conditions.as_ref();
            let node = entry.node_name.as_deref().filter(|name| !name.is_empty());
            endpoints.push(Endpoint {
                address,
                ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
                serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
                terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
                local: node == Some(&*self.node_name),
                hints: entry.hints.as_ref().and_then(|hints| self.hints(hints)),
            });
        }
        endpoints.shrink_to_fit();
        endpoints
    }

    fn hints(&mut self, hints: &discovery::EndpointHints) -> Option<Arc<Hints>> {
        let nodes = hints.for_nodes.as_deref().unwrap_or_default();
        let zones = hints.for_zones.as_deref().unwrap_or_default();
        if nodes.is_empty() && zones.is_empty() {
            return None;
        }
        let mut zones: Vec<Arc<str>> = zones.iter().map(|zone| self.string(&zone.name)).collect();
        // A set: the order in which a controller wrote it must not make another value of it.
        zones.sort_unstable();
        zones.dedup();
        let this_node = nodes.iter().any(|node| *node.name == *self.node_name);
        Some(self.hints.get_owned(Hints { zones, has_nodes: !nodes.is_empty(), this_node }))
    }
}

fn address_type(text: &str, problems: &mut Vec<String>) -> AddressType {
    match text {
        "IPv4" => AddressType::V4,
        "IPv6" => AddressType::V6,
        other => {
            problems.push(format!("addressType {other:?} is not IPv4 or IPv6: the slice is skipped"));
            AddressType::Other
        }
    }
}

fn triggered(object: &discovery::EndpointSlice, problems: &mut Vec<String>) -> Option<Timestamp> {
    let text = object.metadata.annotations.as_ref()?.get(TRIGGER_ANNOTATION)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.push(format!("annotation {TRIGGER_ANNOTATION} {text:?} is not an RFC 3339 time: ignored"));
    }
    parsed
}
