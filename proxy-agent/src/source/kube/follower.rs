use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::AsyncBufRead;
use kube::{
    Client,
    api::{ListParams, WatchParams},
    core::{Request, Status},
};
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Access, Counters, Options, Timing,
    backoff::{Backoff, up_to},
    client::connect,
    kind::Kind,
    lines::{Lines, read_page},
    trouble::Trouble,
    wire::{Event, EventKind, Identity, Page},
};
use crate::state::{Change, Ingest, ObjectName};

/// Objects a page.
const PAGE: u32 = 500;
/// How often a watch may bring garbage at one resource version before everything is listed again.
const GARBAGE: u32 = 3;
/// How often trouble that lasts, or comes and goes, is repeated in the log.
const REPEAT: Duration = Duration::from_secs(60);

/// Follows the objects of one kind.
pub(super) struct Follower<K: Kind> {
    client: Client,
    access: Access,
    request: Request,
    labels: Option<String>,
    fields: Option<String>,
    timing: Timing,
    counters: Arc<Counters>,
    ingest: Arc<Mutex<Ingest>>,
    changes: mpsc::Sender<Change>,
    /// Where the next watch goes on; `None` when a list is due.
    version: Option<String>,
    /// Whether a complete list has been sent.
    listed: bool,
    /// The server could not continue a list in pages: the next one is asked for whole.
    whole: bool,
    /// Something has come that is worth trying again at once for.
    progress: bool,
    /// Garbage in a row at this resource version.
    garbage: u32,
    /// Objects that were sent and are there.
    known: HashSet<ObjectName>,
    /// Objects that cannot be read, and why.
    unreadable: HashMap<ObjectName, String>,
    /// Which trouble was last in the log, and when.
    warned: Option<(String, Instant)>,
    /// Whether the last word in the log is of trouble.
    troubled: bool,
    kind: PhantomData<fn() -> K>,
}

/// The receiver of changes is gone: the agent is stopping.
struct Stopped;

/// Why a list or watch ended.
enum End {
    Trouble(Trouble),
    Stopped,
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl<T: Into<Trouble>> From<T> for End {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

impl<K: Kind> Follower<K> {
    pub(super) fn new(
        client: Client,
        options: &Options,
        ingest: Arc<Mutex<Ingest>>,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        Self {
            client,
            access: options.access.clone(),
            request: Request::new(K::PATH),
            labels: K::WITHOUT_LABEL.map(|label| format!("!{label}")),
            fields: K::fields(&options.node_name),
            timing: options.timing,
            counters: Arc::clone(&options.counters),
            ingest,
            changes,
            version: None,
            listed: false,
            whole: false,
            progress: false,
            garbage: 0,
            known: HashSet::new(),
            unreadable: HashMap::new(),
            warned: None,
            troubled: false,
            kind: PhantomData,
        }
    }

    /// Lists and watches until the receiver is gone.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        self.counters.set_watch(K::NAME, false);
        loop {
            self.progress = false;
            let round = match self.version.clone() {
                None => self.list().await,
                Some(version) => {
                    let round = self.watch(&version).await;
                    // A list alone does not count: a server that can be listed but not watched must not be
                    // listed again and again at full speed. Nor does time that went by before the watch was
                    // granted: a server that needs seconds to refuse has more to do than it can.
                    if self.progress {
                        backoff.reset();
                    }
                    round
                }
            };
            let trouble = match round {
                Ok(()) => continue,
                Err(End::Stopped) => return,
                Err(End::Trouble(trouble)) => trouble,
            };
            self.counters.add_lost();
            self.counters.set_watch(K::NAME, false);
            self.look_into(&trouble);
            let wait = backoff.next().max(trouble.retry_after().min(Duration::from_secs(10)));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changes.closed() => return,
            }
            if trouble.is_of_credentials() {
                self.renew_client().await;
            }
        }
    }

    /// Reads certificates and keys again. The kubelet and others replace theirs long before they expire, but
    /// what a client has read once it keeps.
    async fn renew_client(&mut self) {
        match connect(&self.access, self.counters.requests()).await {
            Ok(client) => self.client = client,
            // Being written, perhaps: the old one is as good as none.
            Err(error) => debug!(kind = K::NAME, "reading the credentials again: {error:#}"),
        }
    }

    /// What trouble means for the next round, and a line in the log for it.
    fn look_into(&mut self, trouble: &Trouble) {
        match trouble {
            // What is being forgotten is a page of a list when there is no version to watch from.
            Trouble::Gone if self.version.is_none() => self.whole = true,
            Trouble::Gone => self.version = None,
            // Whatever kept it from coming whole: pages are easier on the server, and may work by now.
            _ if self.whole => self.whole = false,
            Trouble::Garbage(_) => {
                self.garbage += 1;
                if self.garbage >= GARBAGE {
                    self.version = None;
                    self.garbage = 0;
                }
            }
            _ => {}
        }
        if matches!(trouble, Trouble::Gone) {
            info!(kind = K::NAME, "{trouble}; listing again");
            return;
        }
        // A broken connection may turn into a refusal that only an operator can do something about.
        let text = trouble.to_string();
        let said = self.warned.as_ref().filter(|(last, since)| *last == text && since.elapsed() < REPEAT);
        if said.is_none() {
            self.warned = Some((text, Instant::now()));
            self.troubled = true;
            warn!(kind = K::NAME, "following {}: {trouble}; trying again, what is programmed stays", K::PATH);
        } else {
            debug!(kind = K::NAME, "following {}: {trouble}; trying again", K::PATH);
        }
    }

    /// Something has come in from the server.
    fn all_is_well(&mut self) {
        self.progress = true;
        if std::mem::take(&mut self.troubled) {
            info!(kind = K::NAME, "following {} again", K::PATH);
        }
    }

    async fn list(&mut self) -> Result<(), End> {
        let mut list = Vec::new();
        let mut names = HashSet::new();
        let mut unreadable = HashMap::new();
        let mut params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: (!self.whole).then_some(PAGE),
            ..ListParams::default()
        };
        let version = loop {
            let request = self.request.list(&params).map_err(kube::Error::BuildRequest)?;
            let body = read_page(self.send(request).await?, self.timing.response).await?;
            let page: Page<'_> = serde_json::from_slice(&body)
                .map_err(|error| Trouble::Garbage(format!("the list of {}: {error}", K::PATH)))?;
            for item in page.items.unwrap_or_default() {
                match self.read(item) {
                    Ok((name, _, slim)) => {
                        names.insert(name);
                        list.push(slim);
                    }
                    Err((Some(name), why)) => drop(unreadable.insert(name, why)),
                    Err((None, why)) => self.report(None, why),
                }
            }
            if page.metadata.next.is_empty() {
                break page.metadata.resource_version;
            }
            params.continue_token = Some(page.metadata.next);
        };
        if version.is_empty() {
            return Err(Trouble::Garbage(format!("the list of {} has no resourceVersion", K::PATH)).into());
        }
        for (name, why) in &unreadable {
            self.report(Some(name), why.clone());
        }
        self.unreadable = unreadable;
        self.whole = false;
        self.all_is_well();
        self.counters.add_list();
        debug!(kind = K::NAME, objects = list.len(), version, "listed");
        self.send_list(list, names).await?;
        self.version = Some(version);
        Ok(())
    }

    /// Sends a complete list. Objects known from before that cannot be read now stay as they were, which a
    /// list that replaces everything cannot say: then each object is sent for itself.
    async fn send_list(&mut self, list: Vec<K::Slim>, mut names: HashSet<ObjectName>) -> Result<(), Stopped> {
        let stale: Vec<_> =
            self.unreadable.keys().filter(|name| self.known.contains(*name)).cloned().collect();
        if self.listed && !stale.is_empty() {
            names.extend(stale);
            for name in self.known.difference(&names).cloned().collect::<Vec<_>>() {
                self.emit(K::gone(name)).await?;
            }
            for object in list {
                self.emit(K::one(object)).await?;
            }
        } else {
            self.emit(K::complete(list)).await?;
        }
        self.listed = true;
        self.known = names;
        Ok(())
    }

    async fn watch(&mut self, version: &str) -> Result<(), End> {
        let ask = self.timing.watch + up_to(self.timing.watch / 3);
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(u32::try_from(ask.as_secs().clamp(1, 290)).unwrap_or(290)),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = self.request.watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let stream = tokio::select! {
            stream = self.send(request) => stream?,
            () = self.changes.closed() => return Err(End::Stopped),
        };
        let granted = Instant::now();
        self.counters.set_watch(K::NAME, true);
        let mut lines = Lines::new(stream, ask + self.timing.silence);
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = self.changes.closed() => return Err(End::Stopped),
            };
            self.progress |= granted.elapsed() >= self.timing.short;
            match line? {
                Some([]) => {}
                Some(line) => self.event(line).await?,
                None if self.progress => return Ok(()),
                None => return Err(Trouble::Short.into()),
            }
        }
    }

    async fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<impl AsyncBufRead + Unpin + use<K>, Trouble> {
        match timeout(self.timing.response, self.client.request_stream(request)).await {
            Ok(stream) => Ok(Box::pin(stream?)),
            Err(_) => Err(Trouble::Silent(self.timing.response)),
        }
    }

    async fn event(&mut self, line: &[u8]) -> Result<(), End> {
        let garbage = |error: serde_json::Error| {
            let start = String::from_utf8_lossy(&line[..line.len().min(80)]);
            Trouble::Garbage(format!("a watch event, {error}: {start:?}"))
        };
        let event: Event<'_> = serde_json::from_slice(line).map_err(garbage)?;
        match event.kind {
            EventKind::Added | EventKind::Modified => match self.read(event.object) {
                Ok((name, version, slim)) => {
                    self.seen(version.as_deref());
                    self.unreadable.remove(&name);
                    self.known.insert(name);
                    self.emit(K::one(slim)).await?;
                }
                Err((name, why)) => {
                    let identity = serde_json::from_str::<Identity<'_>>(event.object.get());
                    self.seen(identity.as_ref().ok().and_then(Identity::version));
                    self.report(name.as_ref(), why.clone());
                    if let Some(name) = name {
                        self.unreadable.insert(name, why);
                    }
                }
            },
            EventKind::Deleted => {
                let identity: Identity<'_> = serde_json::from_str(event.object.get()).map_err(garbage)?;
                self.seen(identity.version());
                if let Some(name) = identity.name() {
                    self.unreadable.remove(&name);
                    if self.known.remove(&name) {
                        self.emit(K::gone(name)).await?;
                    }
                }
            }
            EventKind::Bookmark => {
                let identity: Identity<'_> = serde_json::from_str(event.object.get()).map_err(garbage)?;
                self.seen(identity.version());
            }
            EventKind::Error => {
                let status: Box<Status> = serde_json::from_str(event.object.get()).map_err(garbage)?;
                return Err(status.into());
            }
        }
        Ok(())
    }

    /// An event has been read: a watch that starts again goes on after it.
    fn seen(&mut self, version: Option<&str>) {
        self.garbage = 0;
        self.all_is_well();
        if let Some(version) = version {
            self.version = Some(version.to_owned());
        }
    }

    /// Reads one object: its name, its resource version and what is kept of it. An error has the name, where
    /// that at least is readable, and the reason.
    #[expect(clippy::type_complexity, reason = "named once, used twice in this file")]
    fn read(
        &self,
        text: &RawValue,
    ) -> Result<(ObjectName, Option<String>, K::Slim), (Option<ObjectName>, String)> {
        match serde_json::from_str::<K::Object>(text.get()) {
            Ok(object) => {
                // Slimming does not fail; if it did panic in another task, what is interned is still whole.
                let slim = K::slim(&mut self.ingest.lock().unwrap_or_else(PoisonError::into_inner), &object);
                let metadata = K::metadata(&object);
                match K::name(&slim, metadata) {
                    name if name.name.is_empty() => Err((None, "it has no name".into())),
                    name => Ok((name, metadata.resource_version.clone(), slim)),
                }
            }
            Err(error) => {
                let name = serde_json::from_str::<Identity<'_>>(text.get()).ok();
                Err((name.and_then(|identity| identity.name()), error.to_string()))
            }
        }
    }

    /// Counts an object that cannot be read, and says so unless it has been said before.
    fn report(&self, name: Option<&ObjectName>, why: String) {
        self.counters.add_unreadable();
        match name {
            Some(name) if self.unreadable.get(name) == Some(&why) => {}
            Some(name) => {
                let kept =
                    if self.known.contains(name) { "its last readable state is kept" } else { "left out" };
                warn!(kind = K::NAME, object = %name, "this {} cannot be read, {kept}: {why}", K::NAME);
            }
            None => warn!(kind = K::NAME, "a {} without a readable name is left out: {why}", K::NAME),
        }
    }

    async fn emit(&self, change: Change) -> Result<(), Stopped> {
        self.changes.send(change).await.map_err(|_| Stopped)
    }
}
