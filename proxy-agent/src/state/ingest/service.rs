use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use proxy_common::Family;

use super::{Ingest, address, port, protocol};
use crate::state::{Service, ServicePort, family_of, parse_net};

/// Session affinity timeout in seconds where a Service sets none; the API server fills in the same.
const DEFAULT_AFFINITY: u32 = 10_800;

/// The longest session affinity timeout in seconds: a day.
const MAX_AFFINITY: u32 = 86_400;

impl Ingest {
    /// What the agent keeps of a Service (KUBE-PROXY.md 1.1 and 1.2).
    pub fn service(&mut self, object: &core::Service) -> Service {
        let mut service = Service {
            name: self.name(&object.metadata),
            uid: object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            ports: Vec::new(),
            internal_local: false,
            external_local: false,
            health_check_port: None,
            affinity_seconds: None,
            problems: Vec::new(),
        };
        let blank = core::ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&blank);
        let cluster_ip = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
            (Some("ExternalName"), _) | (_, Some("None")) => return service,
            (_, None | Some("")) => {
                service.problems.push("spec.clusterIP is not set: the Service is not served".into());
                return service;
            }
            (_, Some(cluster_ip)) => cluster_ip,
        };
        let problems = &mut service.problems;
        service.cluster_ips = cluster_ips(spec, cluster_ip, problems);
        let external_ips = spec.external_ips.as_deref().unwrap_or_default();
        service.external_ips = external_ips
            .iter()
            .enumerate()
            .filter_map(|(index, text)| address(&format!("spec.externalIPs[{index}]"), text, problems))
            .collect();
        service.load_balancer_ips = load_balancer_ips(object, problems);
        service.source_ranges = source_ranges(spec, problems);
        service.internal_local =
            is_local("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), problems);
        let policy =
            is_local("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref(), problems);
        service.external_local = policy && may_come_from_outside(spec, problems);
        service.health_check_port =
            if service.external_local { health_check_port(spec, problems) } else { None };
        service.affinity_seconds = affinity_seconds(spec, problems);
        service.ports = self.service_ports(spec, problems);
        service
    }

    fn service_ports(&mut self, spec: &core::ServiceSpec, problems: &mut Vec<String>) -> Vec<ServicePort> {
        let entries = spec.ports.as_deref().unwrap_or_default();
        let mut ports = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let field = format!("spec.ports[{index}]");
            let name = entry.name.as_deref().unwrap_or_default();
            let protocol = protocol(&format!("{field}.protocol"), entry.protocol.as_deref(), problems);
            let Some(protocol) = protocol else { continue };
            let Some(number) = port(&format!("{field}.port"), entry.port, problems) else { continue };
            let node_port = match entry.node_port.unwrap_or(0) {
                0 => None,
                number => u16::try_from(number).ok().or_else(|| {
                    problems.push(format!("{field}.nodePort {number} is not in 1 to 65535: it is skipped"));
                    None
                }),
            };
            ports.push(ServicePort { name: self.string(name), protocol, port: number, node_port });
        }
        ports.shrink_to_fit();
        ports
    }
}

/// `clusterIPs` at the place where `ipFamilies` has the family; without families, `clusterIP` itself.
fn cluster_ips(spec: &core::ServiceSpec, cluster_ip: &str, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let mut listed: Vec<&str> = spec.cluster_ips.iter().flatten().map(String::as_str).collect();
    if families.is_empty() {
        if listed.len() > 1 {
            problems.push(
                "spec.ipFamilies is empty: of spec.clusterIPs only spec.clusterIP is served; name the families"
                    .into(),
            );
        }
        return address("spec.clusterIP", cluster_ip, problems).into_iter().collect();
    }
    if listed.is_empty() {
        // The API server fills in clusterIPs; a hand-written manifest may have only the first.
        listed.push(cluster_ip);
    }
    let mut found: Vec<IpAddr> = Vec::with_capacity(2);
    for (index, name) in families.iter().enumerate() {
        let family = match name.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => {
                problems
                    .push(format!("spec.ipFamilies[{index}] {other:?} is not IPv4 or IPv6: it is skipped"));
                continue;
            }
        };
        let Some(text) = listed.get(index) else {
            problems.push(format!("spec.clusterIPs has no entry for spec.ipFamilies[{index}] {name}"));
            continue;
        };
        let field = format!("spec.clusterIPs[{index}]");
        let Some(address) = address(&field, text, problems) else { continue };
        if family_of(address) != family {
            problems
                .push(format!("{field} {text:?} is not of spec.ipFamilies[{index}] {name}: it is skipped"));
        } else if !found.iter().any(|known| family_of(*known) == family) {
            found.push(address);
        }
    }
    found
}

/// Entries in mode `Proxy`, and those with a host name only, belong to the load balancer alone (KEP-1860).
fn load_balancer_ips(object: &core::Service, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut found = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let field = format!("status.loadBalancer.ingress[{index}]");
        let Some(text) = entry.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        match entry.ip_mode.as_deref() {
            None | Some("" | "VIP") => found.extend(address(&format!("{field}.ip"), text, problems)),
            Some("Proxy") => {}
            Some(other) => problems
                .push(format!("{field}.ipMode {other:?} is not VIP or Proxy: the address {text} is skipped")),
        }
    }
    found
}

fn source_ranges(spec: &core::ServiceSpec, problems: &mut Vec<String>) -> Vec<IpNet> {
    let entries = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let mut ranges = Vec::with_capacity(entries.len());
    for (index, text) in entries.iter().enumerate() {
        match parse_net(text.trim()) {
            Some(range) => ranges.push(range),
            None => problems.push(format!(
                "spec.loadBalancerSourceRanges[{index}] {text:?} is not a network such as 192.0.2.0/24: it is \
                 skipped"
            )),
        }
    }
    if ranges.is_empty() && !entries.is_empty() {
        problems.push(
            "spec.loadBalancerSourceRanges has no readable entry: the load balancer addresses are open to \
             every client"
                .into(),
        );
    }
    ranges
}

fn is_local(field: &str, policy: Option<&str>, problems: &mut Vec<String>) -> bool {
    match policy {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            problems.push(format!("{field} {other:?} is not Cluster or Local: Cluster is used"));
            false
        }
    }
}

/// Whether externalTrafficPolicy counts. The external IPs of a ClusterIP Service decide it whatever their
/// family, and whether they can be read or not.
fn may_come_from_outside(spec: &core::ServiceSpec, problems: &mut Vec<String>) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => true,
        None | Some("" | "ClusterIP") => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        Some(other) => {
            problems.push(format!("spec.type {other:?} is unknown: spec.externalTrafficPolicy is ignored"));
            false
        }
    }
}

/// Of other types than LoadBalancer the field means nothing.
fn health_check_port(spec: &core::ServiceSpec, problems: &mut Vec<String>) -> Option<u16> {
    let number = spec.health_check_node_port.filter(|_| spec.type_.as_deref() == Some("LoadBalancer"))?;
    if number == 0 {
        return None;
    }
    let port = u16::try_from(number).ok();
    if port.is_none() {
        problems.push(format!(
            "spec.healthCheckNodePort {number} is not in 1 to 65535: load balancers cannot ask for the Service's \
             health"
        ));
    }
    port
}

fn affinity_seconds(spec: &core::ServiceSpec, problems: &mut Vec<String>) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            problems.push(format!("spec.sessionAffinity {other:?} is not None or ClientIP: None is used"));
            return None;
        }
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = client_ip.and_then(|client_ip| client_ip.timeout_seconds) else {
        return Some(DEFAULT_AFFINITY);
    };
    let in_range = u32::try_from(seconds).ok().filter(|seconds| (1..=MAX_AFFINITY).contains(seconds));
    if in_range.is_none() {
        problems.push(format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds} is not in 1 to {MAX_AFFINITY}: \
             {DEFAULT_AFFINITY} is used"
        ));
    }
    in_range.or(Some(DEFAULT_AFFINITY))
}
