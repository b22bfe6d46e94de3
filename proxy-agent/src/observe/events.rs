//! Events of the API server, for whoever looks at a Service or Node with kubectl (KUBE-PROXY.md 4.10).

mod api;
mod limits;
mod sender;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::debug;
use uuid::Uuid;

use crate::{
    plan::{ObjectRef, Problem},
    said::Said,
    source::kube::{Access, Requests},
    state::ObjectName,
};
pub(super) use sender::Sender;

/// Events that may wait for the API server; more are dropped.
const QUEUE: usize = 256;
/// How soon the same thing is said again: the API server keeps an event for an hour.
const REPEAT: Duration = Duration::from_secs(65 * 60);
/// How many things are remembered.
const MOST: usize = 8192;

/// Says things by events. To be cloned freely; nobody who says something waits for the API server.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Box<str>,
    said: Mutex<Said>,
    /// `None` without an API server: then events are in the log only.
    queue: Option<mpsc::Sender<Order>>,
}

/// What the sender is to do.
#[derive(Debug)]
enum Order {
    Send(Event),
    /// To say when everything before has been sent.
    Flush(oneshot::Sender<()>),
}

/// Something to be said about an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    object: ObjectRef,
    /// The object's own, if known.
    uid: Option<Uuid>,
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
    scope: Scope,
}

/// Who else may say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// Every node: the object is at fault.
    Cluster,
    /// This node alone.
    Node,
    /// The same, each time anew.
    Once,
}

impl Event {
    /// The agent has begun to work.
    #[must_use]
    pub fn starting() -> Self {
        let note =
            concat!("Ferroute ", env!("CARGO_PKG_VERSION"), " serves the Services of this node").into();
        Self { warning: false, scope: Scope::Once, ..Self::of_node("Starting", note) }
    }

    /// Something keeps the agent from starting.
    #[must_use]
    pub fn failed_to_start(reason: &'static str, note: String) -> Self {
        Self { scope: Scope::Once, ..Self::of_node(reason, note) }
    }

    /// What is wrong with an object, for everybody. `uid` is the object's.
    #[must_use]
    pub fn of_problem(problem: &Problem, uid: Option<Uuid>) -> Self {
        Self {
            object: problem.object.clone(),
            uid,
            warning: true,
            reason: problem.reason.name(),
            action: "Program",
            note: problem.message.clone(),
            scope: if problem.object == ObjectRef::Node { Scope::Node } else { Scope::Cluster },
        }
    }

    /// What this node cannot do for a Service; the note should name it.
    #[must_use]
    pub fn of_service(
        service: &ObjectName,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) -> Self {
        let object = ObjectRef::Service(service.clone());
        Self { object, uid: None, warning: true, reason, action, note, scope: Scope::Node }
    }

    /// With the object's own id, without which `kubectl describe` does not show the event.
    #[must_use]
    pub fn with_uid(self, uid: Option<Uuid>) -> Self {
        Self { uid, ..self }
    }

    fn of_node(reason: &'static str, note: String) -> Self {
        let (action, scope) = ("StartKubeProxy", Scope::Node);
        Self { object: ObjectRef::Node, uid: None, warning: true, reason, action, note, scope }
    }
}

impl Events {
    /// For an agent on `node` that asks the API server of `access`; what is
    /// said is on its way when the sender runs.
    pub(super) fn to_api_server(node: &str, access: Access, requests: Requests) -> (Self, Sender) {
        let (queue, orders) = mpsc::channel(QUEUE);
        (Self::new(node, Some(queue)), Sender::new(node, access, requests, orders))
    }

    /// Without an API server.
    pub(super) fn nowhere(node: &str) -> Self {
        Self::new(node, None)
    }

    fn new(node: &str, queue: Option<mpsc::Sender<Order>>) -> Self {
        Self(Arc::new(Shared { node: node.into(), said: Mutex::new(Said::new(REPEAT, MOST)), queue }))
    }

    /// Name of the node that all this is about.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Says something, unless it was said lately. Whether it was news, sent or not.
    pub fn send(&self, mut event: Event) -> bool {
        if event.scope != Scope::Once {
            let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(repeated) = said.is_news(&event) else { return false };
            drop(said);
            if repeated > 0 {
                event.note.push_str(&format!(" (and {repeated} times since this was said last)"));
            }
        }
        if let Some(queue) = &self.0.queue
            && let Err(full) = queue.try_send(Order::Send(event))
        {
            debug!("an event is left out, too many wait: {full}");
        }
        true
    }

    /// Waits until everything that was said has been sent, but not for long.
    pub async fn flush(&self, patience: Duration) {
        let Some(queue) = &self.0.queue else { return };
        let (done, wait) = oneshot::channel();
        let flushed = async {
            if queue.send(Order::Flush(done)).await.is_ok() {
                // An error says that the sender has ended.
                let _ = wait.await;
            }
        };
        // In vain when the API server does not answer.
        let _ = timeout(patience, flushed).await;
    }
}
