//! A small Kubernetes API server with real list and watch, for tests, the lab and the benchmarks.
//!
//! It lists and watches Services, EndpointSlices and Nodes over HTTP: pages, label and field selectors,
//! resource versions, chunked watch streams that end after their timeout, bookmarks, 410 Gone, and objects
//! that move into and out of a selector. What can go wrong on the way to an API server can be made to: streams
//! cut between or inside events, garbage, malformed objects, refused requests, a server that is away for a
//! while. Events of `events.k8s.io/v1` can be created. A ClusterRole says what is allowed. There is no authentication,
//! and no validation but of events.

mod events;
mod object;
mod rbac;
mod requests;
mod selector;
mod server;
mod store;
mod watch;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub use object::Kind;
pub use rbac::Rules;
pub use requests::Request;
pub use store::Cut;

use object::{Key, Object};
use server::Order;
use store::{Store, StreamEvent};

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// What the server's tasks and its owner share.
#[derive(Debug)]
pub(crate) struct Shared {
    store: Mutex<Store>,
    /// Counts up whenever the store has something new for watches.
    changed: tokio::sync::watch::Sender<u64>,
    requests: requests::Log,
    refusing: Mutex<Option<u16>>,
    refusing_kinds: Mutex<BTreeMap<Kind, u16>>,
    rules: Mutex<Option<Rules>>,
    forbidden: Mutex<Vec<Request>>,
    events: events::Events,
    serial: AtomicU64,
}

impl ApiServer {
    /// Serves on a listener that is bound already, from a thread of its own. The thread inherits the caller's
    /// network namespace, and binds the same address there again when the server [comes back](Self::back).
    ///
    /// # Errors
    /// When the listener has no address or the thread cannot be started.
    pub fn start(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr().context("asking the API server's listener for its address")?;
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            changed: tokio::sync::watch::Sender::new(0),
            requests: requests::Log::default(),
            refusing: Mutex::default(),
            refusing_kinds: Mutex::default(),
            rules: Mutex::default(),
            forbidden: Mutex::default(),
            events: events::Events::default(),
            serial: AtomicU64::new(1),
        });
        let (orders, receiver) = tokio::sync::mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("api-server".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || server::run(&shared, listener, address, receiver)
            })
            .context("starting the API server's thread")?;
        Ok(Self { shared, address, orders, thread: Some(thread) })
    }

    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none, or as [`Self::start`].
    pub fn on_loopback() -> Result<Self> {
        Self::start(TcpListener::bind("127.0.0.1:0").context("binding the API server to 127.0.0.1")?)
    }

    /// The address that it serves on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig for this server.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig(&self, path: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "lab", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        // JSON is YAML.
        std::fs::write(path, config.to_string())
            .with_context(|| format!("writing the kubeconfig {}", path.display()))
    }

    /// Creates an object or replaces it, by kind, namespace (`default` when it has none) and name. A `List` or
    /// an array does so for each of its items. Nothing else of an object is looked at: malformed ones go in.
    ///
    /// # Errors
    /// When there is no kind that the server has, or no name; items before that one are stored.
    pub fn apply(&self, value: Value) -> Result<()> {
        let items = match value {
            Value::Array(items) => items,
            Value::Object(mut object)
                if object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) =>
            {
                match object.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => bail!("a List without items"),
                }
            }
            single => vec![single],
        };
        for item in items {
            let object = Object::parse(item, self.shared.serial.fetch_add(1, Ordering::Relaxed))?;
            self.shared.store().put(object);
        }
        self.shared.notify();
        Ok(())
    }

    /// Deletes an object; false when it was not there. A Node's namespace does not matter.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let deleted = self.shared.store().delete(&Key::new(kind, namespace, name));
        self.shared.notify();
        deleted
    }

    /// Sends a bookmark with the current resource version to every open watch that wants bookmarks.
    pub fn send_bookmark(&self) {
        let version = self.shared.store().version();
        self.to_streams(StreamEvent::Bookmark { version });
    }

    /// Forgets all history: open watches get a 410 and end, resource versions handed out so far are Gone.
    pub fn expire(&self) {
        self.shared.store().expire();
        self.shared.notify();
    }

    /// Ends every open watch stream.
    pub fn cut_streams(&self, cut: Cut) {
        self.to_streams(StreamEvent::Cut(cut));
    }

    /// Sends a line of the caller's choice into every open watch of a kind, as if it were an event.
    pub fn garbage(&self, kind: Kind, text: &str) {
        self.to_streams(StreamEvent::Line { kind, text: text.to_owned() });
    }

    /// Answers every request with this HTTP status from now on, or again properly with `None`. Streams that
    /// are open stay open.
    pub fn refuse(&self, status: Option<u16>) {
        *lock(&self.shared.refusing) = status;
    }

    /// The same for the requests of one kind.
    pub fn refuse_kind(&self, kind: Kind, status: Option<u16>) {
        let mut kinds = lock(&self.shared.refusing_kinds);
        match status {
            Some(status) => kinds.insert(kind, status),
            None => kinds.remove(&kind),
        };
    }

    /// Refuses from now on what a ClusterRole does not allow, with 403.
    pub fn authorize(&self, rules: Rules) {
        *lock(&self.shared.rules) = Some(rules);
    }

    /// Every request that was refused because of that.
    #[must_use]
    pub fn forbidden(&self) -> Vec<Request> {
        lock(&self.shared.forbidden).clone()
    }

    /// Forgets which requests were refused, for a test that meant them to be.
    pub fn forgive(&self) {
        lock(&self.shared.forbidden).clear();
    }

    /// Refuses every request to create an event with this status, until `None`.
    pub fn refuse_events(&self, status: Option<u16>) {
        self.shared.events.refuse(status);
    }

    /// Every event that was created, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.shared.events.all()
    }

    /// Takes the server away: its port is closed and every connection with it. What it stores is kept.
    pub fn away(&self) {
        self.order(Order::Away);
    }

    /// Brings the server back on the same port.
    pub fn back(&self) {
        self.order(Order::Back);
    }

    /// Every request since the start, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.all()
    }

    /// How many watch streams are open.
    #[must_use]
    pub fn open_watches(&self) -> usize {
        self.shared.changed.receiver_count()
    }

    fn to_streams(&self, event: StreamEvent) {
        self.shared.store().stream_event(event);
        self.shared.notify();
    }

    /// Hands an order to the server's thread and waits until it is done, so that a test sees a port that is
    /// closed or open.
    fn order(&self, order: fn(mpsc::Sender<()>) -> Order) {
        let (done, wait) = mpsc::channel();
        if self.orders.send(order(done)).is_ok() {
            // An error says that the thread has ended, and with it the server.
            let _ = wait.recv();
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The server goes on after a panic in a test's thread: every change to what is locked is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The Status that says that a resource version is no longer kept.
fn gone(oldest: u64) -> Value {
    status(410, "Expired", &format!("too old resource version (the oldest kept is {oldest})"))
}

/// A Status object.
fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}
