use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_common::{EndpointList, FrontendKind, Protocol, WhenEmpty};
use serde::Serialize;

use crate::plan::{PlannedEndpoint, PlannedFrontend, ServicePortId, ServicePortPlan};

#[cfg(test)]
mod tests;

/// Endpoints of a list that the table shows; the others are counted.
const SHOWN: usize = 4;

/// What `proxy-agent plan -o json` prints: every frontend, by Service, port, family and kind.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    frontends: Vec<Frontend>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Frontend {
    service: String,
    port_name: String,
    kind: &'static str,
    address: IpAddr,
    port: u16,
    protocol: &'static str,
    /// For clients in the cluster.
    internal: Vec<Endpoint>,
    /// For traffic from outside; `None` where there is none to be expected.
    external: Option<Vec<Endpoint>>,
    when_empty: WhenEmptyBoth,
    affinity_seconds: Option<u32>,
    /// Those that apply to this frontend: only load balancer addresses have any.
    source_ranges: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    address: IpAddr,
    port: u16,
    local: bool,
    terminating: bool,
}

#[derive(Debug, Serialize)]
struct WhenEmptyBoth {
    internal: &'static str,
    external: Option<&'static str>,
}

impl Document {
    pub(super) fn new<'a>(
        plans: impl Iterator<Item = (&'a ServicePortId, &'a Arc<ServicePortPlan>)>,
    ) -> Self {
        let mut plans: Vec<_> = plans.collect();
        plans.sort_unstable_by_key(|(id, _)| *id);
        let frontends = plans
            .iter()
            .flat_map(|(id, plan)| plan.frontends.iter().map(|frontend| Frontend::new(id, plan, frontend)));
        Self { frontends: frontends.collect() }
    }

    pub(super) fn print_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// One line a frontend; endpoints are marked `*` on this node and `-` when terminating.
    pub(super) fn print_table(&self, out: &mut impl Write) -> io::Result<()> {
        let titles = ["SERVICE", "KIND", "FRONTEND", "INTERNAL", "EXTERNAL", "OPTIONS"].map(str::to_owned);
        let rows: Vec<_> = [titles].into_iter().chain(self.frontends.iter().map(Frontend::row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3, 4, 5].map(width);
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        if !self.frontends.is_empty() {
            writeln!(out, "\n* on this node   - terminating")?;
        }
        Ok(())
    }
}

impl Frontend {
    fn new(id: &ServicePortId, plan: &ServicePortPlan, frontend: &PlannedFrontend) -> Self {
        let endpoints = |list| plan.list(list).map(Endpoint::new).collect::<Vec<_>>();
        let internal = plan.internal_list(frontend.kind);
        let external = match plan.external_list(frontend.kind) {
            EndpointList::None => None,
            list => Some(list),
        };
        let source_ranges = match frontend.kind {
            FrontendKind::LoadBalancer => plan.source_ranges.iter().map(ToString::to_string).collect(),
            FrontendKind::ClusterIp | FrontendKind::ExternalIp | FrontendKind::NodePort => Vec::new(),
        };
        Self {
            service: id.service.to_string(),
            port_name: id.port_name.to_string(),
            kind: kind(frontend.kind),
            address: frontend.address,
            port: frontend.port,
            protocol: protocol(id.protocol),
            internal: endpoints(internal),
            external: external.map(endpoints),
            when_empty: WhenEmptyBoth {
                internal: when_empty(plan.when_empty(internal)),
                external: external.map(|list| when_empty(plan.when_empty(list))),
            },
            affinity_seconds: plan.affinity_seconds,
            source_ranges,
        }
    }

    fn row(&self) -> [String; 6] {
        let name = match self.port_name.as_str() {
            "" => self.service.clone(),
            port => format!("{}:{port}", self.service),
        };
        let list = |endpoints: &[Endpoint], when_empty: &str| match endpoints {
            [] => when_empty.to_owned(),
            endpoints => {
                let mut shown: Vec<String> = endpoints.iter().take(SHOWN).map(Endpoint::mark).collect();
                shown.extend((endpoints.len() > SHOWN).then(|| format!("+{}", endpoints.len() - SHOWN)));
                shown.join(",")
            }
        };
        let external = match (&self.external, self.when_empty.external) {
            (Some(endpoints), Some(when_empty)) => list(endpoints, when_empty),
            _ => String::new(),
        };
        let affinity = self.affinity_seconds.map(|seconds| format!("affinity {seconds}s"));
        let from = (!self.source_ranges.is_empty()).then(|| format!("from {}", self.source_ranges.join(",")));
        [
            name,
            self.kind.to_owned(),
            format!("{}/{}", SocketAddr::new(self.address, self.port), self.protocol),
            list(&self.internal, self.when_empty.internal),
            external,
            affinity.into_iter().chain(from).collect::<Vec<_>>().join("; "),
        ]
    }
}

impl Endpoint {
    fn new(endpoint: &PlannedEndpoint) -> Self {
        let PlannedEndpoint { address, port, local, terminating, lists: _ } = *endpoint;
        Self { address, port, local, terminating }
    }

    fn mark(&self) -> String {
        let local = if self.local { "*" } else { "" };
        let terminating = if self.terminating { "-" } else { "" };
        format!("{}{local}{terminating}", SocketAddr::new(self.address, self.port))
    }
}

fn kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::ExternalIp => "ExternalIP",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::NodePort => "NodePort",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Any => "ANY",
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn when_empty(when_empty: WhenEmpty) -> &'static str {
    match when_empty {
        WhenEmpty::Reject => "reject",
        WhenEmpty::Drop => "drop",
    }
}
