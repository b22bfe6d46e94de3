use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1 as events;
use kube::{Api, Client, api::PostParams};
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, warn};

use super::{Event, Order, Scope, api::object, limits::Rate};
use crate::source::kube::{Access, Requests, connect, up_to};

/// Nodes that see the same at the same time say so within this time, not all at once.
const SPREAD: Duration = Duration::from_secs(2);
/// How long one event may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one is tried,
const TRIES: u32 = 10;
/// and how long after the first failure; doubled with each, up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// Orders that are looked at together.
const BATCH: usize = 64;

/// Brings events to the API server.
pub(in crate::observe) struct Sender {
    node: Box<str>,
    access: Access,
    requests: Requests,
    orders: mpsc::Receiver<Order>,
    client: Option<Client>,
    rate: Rate,
    /// Dropped since the log has said so.
    too_many: u32,
    /// What the log said last of what does not work.
    trouble: Option<String>,
}

/// What has become of an event.
enum Outcome {
    /// It is there: ours, or one of another node that says the same.
    Done,
    /// The API server does not take it, whoever asks.
    Refused(String),
    /// It may work later.
    Failed(String),
}

impl Sender {
    pub(super) fn new(node: &str, access: Access, requests: Requests, orders: mpsc::Receiver<Order>) -> Self {
        Self {
            node: node.into(),
            access,
            requests,
            orders,
            client: None,
            rate: Rate::new(),
            too_many: 0,
            trouble: None,
        }
    }

    /// Sends until nobody says anything any more.
    pub(in crate::observe) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.orders.recv_many(&mut batch, BATCH).await > 0 {
            let is_shared = |order: &Order| matches!(order, Order::Send(Event { scope: Scope::Cluster, .. }));
            let (shared, own): (Vec<_>, Vec<_>) = batch.drain(..).partition(is_shared);
            for order in own {
                self.follow(order).await;
            }
            if !shared.is_empty() {
                sleep(up_to(SPREAD)).await;
            }
            for order in shared {
                self.follow(order).await;
            }
        }
    }

    async fn follow(&mut self, order: Order) {
        match order {
            Order::Send(event) => self.send(&event).await,
            // An error says that nobody waits any more.
            Order::Flush(done) => drop(done.send(())),
        }
    }

    async fn send(&mut self, event: &Event) {
        if !self.rate.take() {
            self.too_many += 1;
            if self.too_many == 1 {
                warn!(
                    "there is more to say than the API server should hear: events are left out, the log has all"
                );
            }
            return;
        }
        self.too_many = 0;
        let object = object(event, &self.node, Timestamp::now());
        let mut wait = RETRY_FIRST;
        for _ in 0..TRIES {
            match self.post(&object).await {
                Outcome::Done => {
                    self.trouble = None;
                    return;
                }
                Outcome::Refused(why) => return self.complain(event, why),
                Outcome::Failed(why) => {
                    self.complain(event, why);
                    // The credentials may have been replaced on disk.
                    self.client = None;
                    sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LAST);
                }
            }
        }
    }

    async fn post(&mut self, object: &events::Event) -> Outcome {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => match connect(&self.access, &self.requests).await {
                Ok(client) => self.client.insert(client).clone(),
                Err(error) => return Outcome::Failed(format!("{error:#}")),
            },
        };
        let api: Api<events::Event> =
            Api::namespaced(client, object.metadata.namespace.as_deref().unwrap_or_default());
        let params = PostParams::default();
        match tokio::time::timeout(PATIENCE, api.create(&params, object)).await {
            Ok(Ok(_)) => Outcome::Done,
            Ok(Err(kube::Error::Api(status))) => match status.code {
                409 => Outcome::Done,
                401 | 429 | 500.. => Outcome::Failed(status.message),
                403 => Outcome::Refused(format!(
                    "{} (the agent's ClusterRole has to allow create on events of events.k8s.io)",
                    status.message
                )),
                _ => Outcome::Refused(status.message),
            },
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Failed(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Once for each reason in a row.
    fn complain(&mut self, event: &Event, why: String) {
        if self.trouble.as_ref() == Some(&why) {
            debug!(object = %event.object, reason = event.reason, "an event was not sent: {why}");
        } else {
            warn!("events cannot be sent: {why}; what they say is in this log too");
            self.trouble = Some(why);
        }
    }
}
