use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::object::{Key, Kind, Object};

/// How many entries are kept for watches that resume; older resource versions are Gone.
const KEPT: usize = 20_000;

/// Objects, and what has happened to them lately.
#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, (u64, Arc<Object>)>,
    version: u64,
    /// Watches from resource versions below this one are Gone.
    oldest: u64,
    log: VecDeque<Entry>,
    /// Position in the log's whole history of `log[0]`.
    first: u64,
}

/// What a watch meets on its way.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// An object was created, changed or deleted.
    Change { version: u64, before: Option<Arc<Object>>, after: Option<Arc<Object>> },
    /// Something that happens to the streams that are open now, not to those that start later.
    Stream(StreamEvent),
}

/// What a test does to open watch streams.
#[derive(Clone, Debug)]
pub(super) enum StreamEvent {
    Bookmark { version: u64 },
    Expire,
    Cut(Cut),
    Line { kind: Kind, text: String },
}

/// How a watch stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As when its timeout is over: the response ends as HTTP wants it.
    Clean,
    /// The connection breaks between two events.
    Broken,
    /// The connection breaks in the middle of an event.
    MidLine,
}

impl Default for Store {
    fn default() -> Self {
        // Any number but 0, which means "any version" to a client.
        Self { objects: BTreeMap::new(), version: 100, oldest: 100, log: VecDeque::new(), first: 0 }
    }
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn put(&mut self, object: Arc<Object>) {
        self.version += 1;
        let before = self.objects.insert(object.key.clone(), (self.version, Arc::clone(&object)));
        let before = before.map(|(_, object)| object);
        self.push(Entry::Change { version: self.version, before, after: Some(object) });
    }

    pub(super) fn delete(&mut self, key: &Key) -> bool {
        let Some((_, before)) = self.objects.remove(key) else { return false };
        self.version += 1;
        self.push(Entry::Change { version: self.version, before: Some(before), after: None });
        true
    }

    /// Lets something happen to the streams that are open now.
    pub(super) fn stream_event(&mut self, event: StreamEvent) {
        self.push(Entry::Stream(event));
    }

    /// Makes every resource version handed out so far Gone.
    pub(super) fn expire(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.push(Entry::Stream(StreamEvent::Expire));
    }

    /// Up to `limit` objects of a kind after `after`, in order, and whether that was all.
    pub(super) fn list<'a>(
        &'a self,
        kind: Kind,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (u64, &'a Arc<Object>)> + use<'a> {
        use std::ops::Bound;
        let start = match after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Included(Key { kind, namespace: String::new(), name: String::new() }),
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, (version, object))| (*version, object))
    }

    /// Where a watch that starts now after `version` begins to read the log.
    pub(super) fn position_after(&self, version: u64) -> u64 {
        let skipped = self
            .log
            .iter()
            .position(|entry| matches!(entry, Entry::Change { version: changed, .. } if *changed > version));
        self.first + skipped.unwrap_or(self.log.len()) as u64
    }

    /// The end of the log.
    pub(super) fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// The entry at `position`; an error when it is no longer kept.
    pub(super) fn entry(&self, position: u64) -> Result<Option<&Entry>, Forgotten> {
        let index = position.checked_sub(self.first).ok_or(Forgotten)?;
        Ok(usize::try_from(index).ok().and_then(|index| self.log.get(index)))
    }

    fn push(&mut self, entry: Entry) {
        self.log.push_back(entry);
        if self.log.len() > KEPT {
            if let Some(Entry::Change { version, .. }) = self.log.pop_front() {
                self.oldest = self.oldest.max(version);
            }
            self.first += 1;
        }
    }
}

/// A position of the log that is no longer kept.
#[derive(Debug)]
pub(super) struct Forgotten;
