use std::sync::Arc;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry, Result};

use super::{
    raise,
    register::{self, counter, gauge, gauges, number},
};
use crate::{
    observe::{Health, Question, version},
    run::Counters,
};

/// What the agent itself counts.
#[derive(Debug)]
pub(super) struct Agent {
    health: Arc<Health>,
    counters: Arc<Counters>,
    answers: [(Question, [IntCounter; 2]); 2],
    check: IntGauge,
    checks: IntCounter,
    healthy: IntGauge,
    steps: IntCounter,
    problems: IntCounter,
    refused: IntCounter,
    sync_errors: IntCounter,
    waiting: IntGauge,
    lists: IntCounter,
    lost: IntCounter,
    unreadable: IntCounter,
    watches: IntGaugeVec,
}

impl Agent {
    pub(super) fn new(registry: &Registry, health: Arc<Health>, counters: Arc<Counters>) -> Result<Self> {
        let counter = |name: &str, help: &str| counter(registry, name, help);
        let gauge = |name: &str, help: &str| gauge(registry, name, help);
        let answers = |name: &str, help: &str| -> Result<[IntCounter; 2]> {
            let answers = register::counters(registry, name, help, &["code"])?;
            Ok(["200", "503"].map(|code| answers.with_label_values(&[code])))
        };
        let (check, checks) = health_check(registry)?;
        build_info(registry)?;
        Ok(Self {
            answers: [
                (
                    Question::Healthz,
                    answers("kubeproxy_proxy_healthz_total", "Answers at /healthz by status code")?,
                ),
                (
                    Question::Livez,
                    answers("kubeproxy_proxy_livez_total", "Answers at /livez by status code")?,
                ),
            ],
            check,
            checks,
            healthy: gauge(
                "ferroute_healthy",
                "1 when everything is programmed, or a change waits only shortly",
            )?,
            steps: counter("ferroute_steps_total", "Steps from a set of changes to the data path")?,
            problems: counter(
                "ferroute_problems_total",
                "What of objects was skipped, refused or lost to another",
            )?,
            refused: counter("ferroute_refused_total", "Service ports that the data path had no room for")?,
            sync_errors: counter(
                "ferroute_sync_errors_total",
                "Writes that the kernel refused; they are tried again",
            )?,
            waiting: gauge(
                "ferroute_waiting_service_ports",
                "Service ports that are not programmed as they should be",
            )?,
            lists: counter("ferroute_api_lists_total", "Complete lists from the API server")?,
            lost: counter(
                "ferroute_api_failures_total",
                "Requests to the API server that failed, and broken watches",
            )?,
            unreadable: counter("ferroute_api_unreadable_objects_total", "Objects that could not be read")?,
            watches: gauges(
                registry,
                "ferroute_api_watch_open",
                "1 while the API server tells of changes, by kind of object",
                &["kind"],
            )?,
            health,
            counters,
        })
    }

    /// Looks up what they have become.
    pub(super) fn look(&mut self) {
        for (question, counters) in &self.answers {
            for (counter, answers) in counters.iter().zip(self.health.answered(*question)) {
                raise(counter, answers);
            }
        }
        // Whoever reads this has been answered.
        self.check.set(1);
        self.checks.inc();
        self.healthy.set(self.health.is_healthy().into());
        let (counters, source) = (&self.counters, self.counters.source());
        raise(&self.steps, counters.batches());
        raise(&self.problems, counters.problems());
        raise(&self.refused, counters.refused());
        raise(&self.sync_errors, counters.sync_errors());
        self.waiting.set(number(counters.waiting()));
        raise(&self.lists, source.lists());
        raise(&self.lost, source.lost());
        raise(&self.unreadable, source.unreadable());
        for (kind, open) in source.watches() {
            self.watches.with_label_values(&[kind]).set(open.into());
        }
    }
}

/// The check of kube-proxy's metrics server, under its component's names: the process answers.
fn health_check(registry: &Registry) -> Result<(IntGauge, IntCounter)> {
    let help = "1 when the check of this name succeeds";
    let state = gauges(registry, "kubernetes_healthcheck", help, &["name", "type"])?;
    let help = "Checks by name, kind and outcome";
    let total =
        register::counters(registry, "kubernetes_healthchecks_total", help, &["name", "type", "status"])?;
    Ok((
        state.with_label_values(&["ping", "healthz"]),
        total.with_label_values(&["ping", "healthz", "success"]),
    ))
}

/// Constant: the release whose behaviour this is, and our own.
fn build_info(registry: &Registry) -> Result<()> {
    let own = gauges(registry, "ferroute_build_info", "1; the release is in the labels", &["version"])?;
    own.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let help = "1; the kube-proxy whose behaviour this is, in the labels";
    let labels = ["git_version", "major", "minor", "platform"];
    let kubernetes = gauges(registry, "kubernetes_build_info", help, &labels)?;
    let platform = format!("linux/{}", version::ARCHITECTURE);
    kubernetes.with_label_values(&[version::KUBERNETES, "1", "36", platform.as_str()]).set(1);
    Ok(())
}
