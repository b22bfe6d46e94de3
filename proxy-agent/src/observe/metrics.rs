//! What the agent counts and measures, for Prometheus: kube-proxy's own metrics under kube-proxy's names where the
//! meaning is the same (KUBE-PROXY.md 4.9), and Ferroute's, `ferroute_…`. docs/metrics.md lists all of them.
//!
//! The crate `prometheus` and not `prometheus-client`: kube-proxy has a gauge whose name ends in `_total`, and counters
//! whose type line has their full name, which the OpenMetrics format of the latter cannot write.

mod agent;
mod kernel;
mod register;
mod services;
mod sync;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use prometheus::{IntCounter, Registry, TextEncoder, process_collector::ProcessCollector};

use self::{agent::Agent, kernel::Kernel, services::Services, sync::Sync};
pub use self::{services::ServicesLimit, sync::Triggers};
use super::Health;
use crate::{
    datapath::{Probe, SocketTotals},
    run::Counters,
};

/// Every metric, and where those come from that are only looked up when somebody asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of kube-proxy's sync loop.
    pub(super) sync: Sync,
    /// One at a time looks things up: counters are raised to what they have become.
    sources: Mutex<Sources>,
}

#[derive(Debug)]
struct Sources {
    agent: Agent,
    kernel: Kernel,
    services: Option<Services>,
}

impl Metrics {
    /// `services` where the open sockets of each Service are counted.
    ///
    /// # Errors
    /// Two metrics of one name, which is a mistake in the code.
    pub fn new(
        health: Arc<Health>,
        counters: Arc<Counters>,
        services: Option<ServicesLimit>,
    ) -> Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        for collector in counters.source().requests().collectors() {
            registry.register(collector)?;
        }
        let sources = Sources {
            agent: Agent::new(&registry, health, counters)?,
            kernel: Kernel::new(&registry)?,
            services: services.map(|limit| Services::new(&registry, limit)).transpose()?,
        };
        Ok(Self { sync: Sync::new(&registry)?, registry, sources: Mutex::new(sources) })
    }

    /// The data path is open: what the kernel counts can be read from now on.
    pub fn set_probe(&self, probe: Probe, sockets: Arc<SocketTotals>) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).kernel.set_probe(probe, sockets);
    }

    /// Those whose names are wanted, as they are now, in Prometheus' text format 0.0.4. Reads a few maps of the kernel; with open sockets by Service all
    /// backends, which takes tenths of a second where there are hundreds of thousands.
    ///
    /// # Errors
    /// A value that cannot be written, which is a mistake in the code.
    pub fn render(&self, wanted: fn(&str) -> bool) -> Result<String> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.agent.look();
        sources.kernel.look();
        if let Some(services) = &sources.services {
            services.look();
        }
        let mut families = self.registry.gather();
        families.retain(|family| wanted(family.name()));
        TextEncoder::new().encode_to_string(&families).context("writing the metrics")
    }
}

/// Raises a counter to what it has become somewhere else.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// What is measured by IP family is named so, as kube-proxy has it.
const IP_FAMILY: &str = "ip_family";
