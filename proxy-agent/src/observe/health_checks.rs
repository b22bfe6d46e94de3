use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    Events, Health, NO_SNIFF,
    events::Event,
    listener::{self, Families},
};
use crate::{
    plan::{HealthCheck, HealthCheckChange, HealthCheckId},
    state::{ObjectName, family_of},
};

#[cfg(test)]
mod tests;

/// Before a port that could not be had is asked for again, as kube-proxy asks for its own.
const RETRY: Duration = Duration::from_secs(5);

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What has changed.
#[derive(Debug)]
pub(super) enum Step {
    /// The addresses to listen on, of both families.
    Addresses(Vec<IpAddr>),
    /// Services, and how many of their endpoints are here.
    Checks(Vec<HealthCheckChange>),
}

/// The servers that tell load balancers whether this node has endpoints of a Service (KUBE-PROXY.md 1.12): on
/// each address one for each family of a Service that asks for it. A step costs as much as it changes.
pub(super) struct HealthChecks {
    health: Arc<Health>,
    events: Events,
    addresses: Vec<IpAddr>,
    servers: HashMap<HealthCheckId, Server>,
    /// Those that do not listen everywhere that they should.
    lacking: HashSet<HealthCheckId>,
    /// When they are tried again.
    due: Instant,
}

/// One Service's server in one family.
struct Server {
    port: u16,
    told: Arc<Told>,
    listeners: HashMap<IpAddr, JoinHandle<Infallible>>,
}

/// What a request is answered with.
struct Told {
    service: ObjectName,
    endpoints: AtomicUsize,
    health: Arc<Health>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl HealthChecks {
    pub(super) fn new(health: Arc<Health>, events: Events) -> Self {
        Self {
            health,
            events,
            addresses: Vec::new(),
            servers: HashMap::new(),
            lacking: HashSet::new(),
            due: Instant::now(),
        }
    }

    /// Follows the steps until nobody sends any more.
    pub(super) async fn run(mut self, mut steps: UnboundedReceiver<Step>) {
        loop {
            tokio::select! {
                step = steps.recv() => match step {
                    Some(Step::Addresses(addresses)) => self.listen_on(addresses).await,
                    Some(Step::Checks(changes)) => self.change(changes).await,
                    None => return,
                },
                () = sleep_until(self.due), if !self.lacking.is_empty() => self.try_again(),
            }
        }
    }

    async fn change(&mut self, changes: Vec<HealthCheckChange>) {
        // What closes comes first: another Service may have its port now.
        let (kept, closed): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| {
            let port = self.servers.get(&change.id).map(|server| server.port);
            port.is_none() || port == change.check.map(|check| check.port)
        });
        for change in &closed {
            self.lacking.remove(&change.id);
            if let Some(server) = self.servers.remove(&change.id) {
                server.close().await;
            }
        }
        for HealthCheckChange { id, check } in kept.into_iter().chain(closed) {
            let Some(HealthCheck { port, endpoints }) = check else { continue };
            if let Some(server) = self.servers.get(&id) {
                server.told.endpoints.store(endpoints, Ordering::Relaxed);
                continue;
            }
            let told = Told {
                service: id.service.clone(),
                endpoints: AtomicUsize::new(endpoints),
                health: Arc::clone(&self.health),
            };
            let server = Server { port, told: Arc::new(told), listeners: HashMap::new() };
            self.servers.insert(id.clone(), server);
            self.open(&id);
        }
    }

    async fn listen_on(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
        for server in self.servers.values_mut() {
            let gone = server.listeners.extract_if(|address, _| !self.addresses.contains(address));
            for (_, listener) in gone.collect::<Vec<_>>() {
                close(listener).await;
            }
        }
        for id in self.servers.keys().cloned().collect::<Vec<_>>() {
            self.open(&id);
        }
    }

    fn try_again(&mut self) {
        for id in std::mem::take(&mut self.lacking) {
            if self.open(&id) {
                info!(service = %id.service, family = id.family.name(), "listening for load balancers after all");
            }
        }
    }

    /// Listens where a server should and does not yet. False when that cannot be done everywhere.
    fn open(&mut self, id: &HealthCheckId) -> bool {
        let Some(server) = self.servers.get_mut(id) else { return true };
        let mut refused = Vec::new();
        for address in self.addresses.iter().filter(|address| family_of(**address) == id.family) {
            if server.listeners.contains_key(address) {
                continue;
            }
            let place = SocketAddr::new(*address, server.port);
            match listener::bind(place, Families::One) {
                Ok(listener) => {
                    let router = Router::new().fallback(answer).with_state(Arc::clone(&server.told));
                    server.listeners.insert(*address, tokio::spawn(listener::serve(listener, router)));
                }
                Err(error) => refused.push(format!("{place}: {error}")),
            }
        }
        if refused.is_empty() {
            return true;
        }
        let why = refused.join("; ");
        let note = format!(
            "node {} cannot listen for load balancers that ask for the health of the Service, on {why}; to them it \
             has no endpoints. Free the port or choose another spec.healthCheckNodePort: it is tried again every {} s",
            self.events.node(),
            RETRY.as_secs()
        );
        let event = Event::of_service(&id.service, "FailedToStartServiceHealthcheck", "Listen", note);
        if self.events.send(event) {
            warn!(service = %id.service, "cannot listen for load balancers on {why}; trying again");
        }
        self.due = if self.lacking.is_empty() { Instant::now() + RETRY } else { self.due };
        self.lacking.insert(id.clone());
        false
    }
}

impl Server {
    async fn close(self) {
        for listener in self.listeners.into_values() {
            close(listener).await;
        }
    }
}

/// Waits until the port is free.
async fn close(listener: JoinHandle<Infallible>) {
    listener.abort();
    // An error is what ends it.
    let _ = listener.await;
}

/// Whatever is asked for.
async fn answer(State(told): State<Arc<Told>>) -> Response {
    let ObjectName { namespace, name } = &told.service;
    let (endpoints, healthy) = (told.endpoints.load(Ordering::Relaxed), told.health.is_healthy());
    let body = Body {
        service: Name { namespace, name },
        local_endpoints: endpoints,
        service_proxy_healthy: healthy,
    };
    let code = if endpoints > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [NO_SNIFF], [(WEIGHT, endpoints.to_string())], Json(body)).into_response()
}
