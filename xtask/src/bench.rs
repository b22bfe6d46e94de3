//! `cargo xtask bench`: what the socket path costs, and how fast the agent programs it.
//!
//! Each figure is taken against its own baseline in the same run, round by round, because machines are
//! noisy: absolute times say little, differences and ratios do.

mod calls;
mod change;
mod cluster;
pub mod packet;
mod report;
mod requests;
mod scale;
mod scrape;
mod sockets;
mod verifier;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

pub use self::report::{Report, Row};
use crate::{
    api_server::ApiServer,
    lab::{Agent, AgentSpec, Lab, Node},
};

/// How long an agent may take to list and program a cluster.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of Services in the cluster while the system calls are measured.
    pub services: Vec<usize>,
    /// Rounds of each comparison; every round measures each of its sides once.
    pub rounds: usize,
    /// Large clusters to program: Services, endpoints a Service.
    pub clusters: Vec<(usize, usize)>,
    /// Where the figures are written as JSON.
    pub json: Option<PathBuf>,
}

impl Options {
    /// What the documentation's figures come from; takes some minutes.
    #[must_use]
    pub fn full() -> Self {
        Self {
            services: vec![1, 1_000, 10_000, 50_000],
            rounds: 200,
            clusters: vec![(5_000, 50), (44_000, 2), (10_000, 10)],
            json: None,
        }
    }

    /// A look at everything in a minute.
    #[must_use]
    pub fn quick() -> Self {
        Self { services: vec![1, 1_000], rounds: 40, clusters: vec![(1_000, 50)], json: None }
    }
}

/// Measures with the real agent in a lab, prints a table as it goes, and writes the JSON that was asked for.
///
/// # Errors
/// When the lab cannot be made (it needs root), the agent does not start, or the JSON cannot be written.
pub fn run(agent: &Path, options: &Options) -> Result<()> {
    let mut report = Report::default();
    for &services in &options.services {
        let cluster = Cluster::start(agent, &cluster::with_probe(services))?;
        sockets::measure(&cluster, services, options.rounds, &mut report)?;
        requests::measure(&cluster, services, options.rounds, &mut report)?;
        change::measure(&cluster, services, options.rounds.min(50), &mut report)?;
        scrape::measure(&cluster, "", services, options.rounds.min(50), &mut report)?;
        if services == options.services[0] {
            verifier::measure(&cluster.agent, &mut report)?;
        }
    }
    if let Some(&services) = options.services.iter().max() {
        let cluster = Cluster::start_with(agent, &cluster::with_probe(services), &["--count-connections"])?;
        let what = " with --count-connections";
        scrape::measure(&cluster, what, services, options.rounds.min(50), &mut report)?;
    }
    for &(services, endpoints) in &options.clusters {
        scale::measure(agent, services, endpoints, &mut report)?;
    }
    write(&report, options.json.as_deref())
}

/// Writes the figures as JSON, if that was asked for.
fn write(report: &Report, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_string_pretty(report).context("writing the figures as JSON")?;
    fs::write(path, json).with_context(|| format!("writing the figures to {}", path.display()))?;
    println!("\nfigures written to {}", path.display());
    Ok(())
}

/// A node with the agent, an API server for it, and two pods: `client` and `server`.
struct Cluster {
    // In the order in which they are to end.
    agent: Agent,
    api: ApiServer,
    lab: Lab,
}

impl Cluster {
    fn start(agent: &Path, objects: &cluster::Objects) -> Result<Self> {
        Self::start_with(agent, objects, &[])
    }

    fn start_with(agent: &Path, objects: &cluster::Objects, flags: &[&str]) -> Result<Self> {
        let lab = Lab::with("bench", &[("node-a", &["client", "server"])])?;
        let node = lab.node("node-a");
        let api = api_server(&node)?;
        for object in objects.iter() {
            api.apply(object)?;
        }
        let folder = tempfile::tempdir().context("making a folder for the kubeconfig")?;
        let kubeconfig = folder.path().join("kubeconfig");
        api.kubeconfig(&kubeconfig)?;
        let spec = AgentSpec::with_kubeconfig(agent, &node, &kubeconfig).args(&["--log-level", "debug"]);
        let agent = spec.args(flags).start()?;
        agent.wait_ready(READY_WITHIN)?;
        Ok(Self { agent, api, lab })
    }
}

fn api_server(node: &Node) -> Result<ApiServer> {
    node.run(ApiServer::on_loopback)
}
