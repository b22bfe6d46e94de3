use std::{
    convert::Infallible,
    future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow};
use proxy_common::Family;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    runtime,
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    About, Event, Events, Health, Metrics, ServicesLimit, Triggers,
    health_checks::{HealthChecks, Step},
    health_server,
    listener::{self, Families},
    metrics_server,
};
use crate::{
    datapath::{Probe, SocketTotals},
    plan::{HealthCheckChange, ServicePortId, ServicePortPlan},
    privileges::{Duty, Privileges, warn_of},
    run::Counters,
    source::kube::Access,
    state::Change,
};

/// Before an address that could not be had is asked for again, as kube-proxy has it.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last words may take when the agent cannot start.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What to serve, and to whom to say things.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this node.
    pub node_name: String,
    /// The API server that hears of events; `None` for a host without one.
    pub api_server: Option<Access>,
    /// Where `/healthz` is served; `None` is nowhere.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` is served.
    pub metrics: SocketAddr,
    /// What is told there besides.
    pub about: About,
    /// Services that have numbers of their own, where open sockets are counted.
    pub services: Option<ServicesLimit>,
    /// What the agent counts.
    pub counters: Arc<Counters>,
    /// Whether the agent ends when an address that it should serve on cannot be had.
    pub bind_hard_fail: bool,
    /// A change that waits for twice as long makes the proxy unhealthy.
    pub sync_period: Duration,
    /// What the thread that serves keeps of its privileges.
    pub privileges: Privileges,
}

/// What the loop tells those who watch it. Nothing of it waits for anybody.
#[derive(Debug)]
pub struct Observer {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// When the changes that are being programmed were made.
    triggers: Triggers,
    events: Events,
    steps: mpsc::UnboundedSender<Step>,
    /// Where load balancers may ask, as was said last.
    addresses: Vec<IpAddr>,
    /// Whether new traffic may come to a node of which there is no Node object.
    eligible_without_node: bool,
}

/// The servers at work, on a thread of their own: they answer also while the loop is busy, and those who ask do
/// not hold it up.
#[derive(Debug)]
pub struct Observation {
    failed: oneshot::Receiver<Error>,
}

/// Starts to answer and to say things.
///
/// # Errors
/// When the system gives no thread.
pub fn start(options: Options) -> Result<(Observer, Observation)> {
    raise_file_limit();
    // A host without a cluster has no Node object, and nobody who would take it away.
    let eligible_without_node = options.api_server.is_none();
    let health = Arc::new(Health::new(options.sync_period, eligible_without_node));
    let (events, sender) = match &options.api_server {
        None => (Events::nowhere(&options.node_name), None),
        Some(access) => {
            let requests = options.counters.source().requests().clone();
            let (events, sender) = Events::to_api_server(&options.node_name, access.clone(), requests);
            (events, Some(sender))
        }
    };
    let metrics = Metrics::new(Arc::clone(&health), Arc::clone(&options.counters), options.services.clone())?;
    let metrics = Arc::new(metrics);
    let (observer, steps) =
        Observer::new(Arc::clone(&health), Arc::clone(&metrics), events.clone(), eligible_without_node);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting the runtime that answers health checks")?;
    let (fail, failed) = oneshot::channel();
    let privileges = options.privileges;
    let work = async move {
        if let Some(sender) = sender {
            tokio::spawn(sender.run());
        }
        let checks = HealthChecks::new(Arc::clone(&health), events.clone()).run(steps);
        let Err(error) = tokio::select! {
            served = serve_health(&options, &health, &events) => served,
            served = serve_metrics(&options, &metrics, &events) => served,
            // The loop has ended, and the agent with it.
            () = checks => future::pending().await,
        };
        // An error says that the agent is stopping.
        let _ = fail.send(error);
    };
    // It ends with the process.
    let started = thread::Builder::new().name("observe".into()).spawn(move || {
        warn_of(privileges.limit(Duty::Serve));
        runtime.block_on(work);
    });
    started.context("starting the thread that answers health checks")?;
    Ok((observer, Observation { failed }))
}

/// Serves for ever, where that is asked for.
async fn serve_health(options: &Options, health: &Arc<Health>, events: &Events) -> Result<Infallible> {
    let Some(address) = options.healthz else { return future::pending().await };
    let server = Server {
        path: "/healthz",
        address,
        flag: "--healthz-bind-address",
        reason: "FailedToStartProxierHealthcheck",
    };
    let listener = server.bind(options.bind_hard_fail, events).await?;
    Ok(listener::serve(listener, health_server::router(health)).await)
}

/// Serves for ever.
async fn serve_metrics(options: &Options, metrics: &Arc<Metrics>, events: &Events) -> Result<Infallible> {
    let server = Server {
        path: "/metrics",
        address: options.metrics,
        flag: "--metrics-bind-address",
        reason: "FailedToStartMetricServer",
    };
    let listener = server.bind(options.bind_hard_fail, events).await?;
    Ok(listener::serve(listener, metrics_server::router(metrics, options.about.clone())).await)
}

/// A server, as people know it.
struct Server {
    path: &'static str,
    address: SocketAddr,
    flag: &'static str,
    /// Of the event that says that it cannot be.
    reason: &'static str,
}

impl Server {
    /// Gets its address, however long that takes.
    async fn bind(&self, hard_fail: bool, events: &Events) -> Result<TcpListener> {
        let Self { path, address, flag, reason } = *self;
        loop {
            match listener::bind(address, Families::Both) {
                Ok(listener) => {
                    info!(%address, "serving {path}");
                    return Ok(listener);
                }
                Err(error) if hard_fail => {
                    let what = format!("cannot serve {path} on {address}: {error}");
                    events.send(Event::failed_to_start(reason, what.clone()));
                    events.flush(LAST_WORDS).await;
                    return Err(anyhow!("{what}; free the address, or name another with {flag}"));
                }
                Err(error) => {
                    warn!(
                        "cannot serve {path} on {address}: {error}; trying again every {} s",
                        RETRY.as_secs()
                    );
                }
            }
            sleep(RETRY).await;
        }
    }
}

/// There may be thousands of health check node ports, and the usual limit is 1024 files.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        debug!("raising the limit of open files: {error}");
    }
}

impl Observation {
    /// Waits until the agent has to end because of it, which is never as a rule.
    pub async fn failed(&mut self) -> Error {
        let broken = |_| anyhow!("the thread that answers health checks has ended by itself");
        (&mut self.failed).await.unwrap_or_else(broken)
    }
}

impl Observer {
    /// An observer, and what it tells the servers of health checks.
    pub(super) fn new(
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        events: Events,
        eligible_without_node: bool,
    ) -> (Self, mpsc::UnboundedReceiver<Step>) {
        let (steps, receiver) = mpsc::unbounded_channel();
        let (triggers, addresses) = Default::default();
        (Self { health, metrics, triggers, events, steps, addresses, eligible_without_node }, receiver)
    }

    /// One that only keeps the health, which it shares.
    #[cfg(test)]
    pub(crate) fn of(health: &Arc<Health>) -> Self {
        let metrics = Metrics::new(Arc::clone(health), Arc::default(), None)
            .expect("each metric has a name of its own");
        Self::new(Arc::clone(health), Arc::new(metrics), Events::nowhere("here"), true).0
    }

    /// What is known of the proxy's health.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Where events are said.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The data path is open.
    pub fn set_probe(&self, probe: Probe, sockets: Arc<SocketTotals>) {
        self.metrics.set_probe(probe, sockets);
    }

    /// A change has come.
    pub(crate) fn received(&mut self, change: &Change) {
        self.health.received();
        self.metrics.sync.queued(change);
        self.triggers.note(change);
    }

    /// There is another reason to look at what is programmed.
    pub(crate) fn touched(&self) {
        self.health.received();
        self.metrics.sync.touched();
    }

    /// A step is over, in which these service ports were programmed, or taken out; `full` when every Service was looked at.
    pub(crate) fn stepped<'a>(
        &self,
        full: bool,
        planned: impl Iterator<Item = (&'a ServicePortId, Option<&'a ServicePortPlan>)>,
        took: Duration,
    ) {
        self.metrics.sync.stepped(full, planned, took);
    }

    /// Services and their endpoints are programmed; load balancers may ask for them on these addresses.
    pub(crate) fn health_checks(&mut self, addresses: &[IpAddr], changes: Vec<HealthCheckChange>) {
        // The receiver is gone only when its thread is, and then the agent ends.
        if self.addresses != addresses {
            self.addresses = addresses.to_vec();
            let _ = self.steps.send(Step::Addresses(addresses.to_vec()));
        }
        if !changes.is_empty() {
            let _ = self.steps.send(Step::Checks(changes));
        }
    }

    /// All that has come is programmed, but for what the kernel refuses of a family.
    pub(crate) fn programmed(&mut self, is_complete: impl Fn(Family) -> bool) {
        self.metrics.sync.done(&is_complete, std::mem::take(&mut self.triggers));
        self.health.programmed(is_complete);
    }

    /// What the source says of the Node.
    pub(crate) fn node(&self, store: &crate::state::Store) {
        self.health.set_eligible(store.is_eligible(self.eligible_without_node));
    }
}
