use std::{collections::VecDeque, io, sync::Arc};

use futures::{Stream, stream};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{
    Shared,
    object::{Kind, Object},
    selector::Selector,
    store::{Cut, Entry, StreamEvent},
};

/// One open watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    kind: Kind,
    selector: Selector,
    bookmarks: bool,
    deadline: Instant,
    /// Next entry of the log to read.
    position: u64,
    /// What happened to streams before this one was opened is none of its business.
    opened: u64,
    /// Lines to send before the log is looked at.
    first: VecDeque<String>,
    ending: Option<Ending>,
}

/// How the stream ends after what it still has to send.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Clean,
    Broken,
}

/// From where a watch sends.
pub(super) enum From {
    /// Every object there is, as ADDED, then changes.
    Now,
    /// Changes after this resource version.
    Version(u64),
}

impl Watch {
    pub(super) fn open(
        shared: &Arc<Shared>,
        kind: Kind,
        selector: Selector,
        from: From,
        bookmarks: bool,
        deadline: Instant,
    ) -> Self {
        let store = shared.store();
        let mut first = VecDeque::new();
        let position = match from {
            From::Version(version) => store.position_after(version),
            From::Now => {
                first.extend(
                    store
                        .list(kind, None)
                        .filter(|(_, object)| selector.matches(object))
                        .map(|(version, object)| object.event("ADDED", version)),
                );
                store.end()
            }
        };
        let opened = store.end();
        drop(store);
        Self {
            changed: shared.changed.subscribe(),
            shared: Arc::clone(shared),
            kind,
            selector,
            bookmarks,
            deadline,
            position,
            opened,
            first,
            ending: None,
        }
    }

    /// The body of the response.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<String>> {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(watch))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(line) = self.first.pop_front() {
                return Ok(Some(line));
            }
            match self.ending {
                Some(Ending::Clean) => return Ok(None),
                Some(Ending::Broken) => {
                    // The half line has to leave before the connection is torn down.
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut by the test"));
                }
                None => {}
            }
            // Before the log is read, so that nothing that comes in meanwhile is slept over.
            self.changed.mark_unchanged();
            if let Some(line) = self.read_log() {
                return Ok(Some(line));
            }
            if self.ending.is_some() || !self.first.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { self.ending = Some(Ending::Clean) },
                () = tokio::time::sleep_until(self.deadline) => self.ending = Some(Ending::Clean),
            }
        }
    }

    /// The next line out of the log, or none when the log is read or the stream has to end.
    fn read_log(&mut self) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        loop {
            let entry = match store.entry(self.position) {
                Ok(entry) => entry?.clone(),
                Err(_) => {
                    self.ending = Some(Ending::Clean);
                    return Some(gone_event(store.oldest()));
                }
            };
            let earlier = self.position < self.opened;
            self.position += 1;
            match entry {
                Entry::Change { version, before, after } => {
                    let line = self.change(version, before.as_deref(), after.as_deref());
                    if line.is_some() {
                        return line;
                    }
                }
                Entry::Stream(_) if earlier => {}
                Entry::Stream(event) => {
                    let line = self.stream_event(event, store.oldest());
                    if line.is_some() || self.ending.is_some() {
                        return line;
                    }
                }
            }
        }
    }

    /// The event of a change as this watch's selector sees it: what begins to match is added, what no longer
    /// does is deleted.
    fn change(&self, version: u64, before: Option<&Object>, after: Option<&Object>) -> Option<String> {
        let seen = |object: &&Object| object.key.kind == self.kind && self.selector.matches(object);
        match (before.filter(seen), after.filter(seen)) {
            (None, Some(after)) => Some(after.event("ADDED", version)),
            (Some(_), Some(after)) => Some(after.event("MODIFIED", version)),
            (Some(before), None) => Some(before.event("DELETED", version)),
            (None, None) => None,
        }
    }

    fn stream_event(&mut self, event: StreamEvent, oldest: u64) -> Option<String> {
        match event {
            StreamEvent::Bookmark { version } => self.bookmarks.then(|| {
                let object = json!({"kind": self.kind.name(), "apiVersion": self.kind.api_version(),
                    "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}});
                format!("{}\n", json!({"type": "BOOKMARK", "object": object}))
            }),
            StreamEvent::Expire => {
                self.ending = Some(Ending::Clean);
                Some(gone_event(oldest))
            }
            StreamEvent::Cut(Cut::Clean) => {
                self.ending = Some(Ending::Clean);
                None
            }
            StreamEvent::Cut(Cut::Broken) => {
                self.ending = Some(Ending::Broken);
                None
            }
            StreamEvent::Cut(Cut::MidLine) => {
                self.ending = Some(Ending::Broken);
                Some(format!(r#"{{"type":"MODIFIED","object":{{"kind":"{}","metad"#, self.kind.name()))
            }
            StreamEvent::Line { kind, text } => (kind == self.kind).then(|| format!("{text}\n")),
        }
    }
}

fn gone_event(oldest: u64) -> String {
    format!("{}\n", json!({"type": "ERROR", "object": super::gone(oldest)}))
}
