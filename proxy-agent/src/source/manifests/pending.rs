use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    time::Duration,
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::time::Instant;

use super::folder::{Scope, is_manifest};

/// Time in which changes are gathered before they are read: one save is often several events.
const GATHER: Duration = Duration::from_millis(20);

/// How long a file that is being written is left alone when nobody closes it, counted from its last write.
pub(super) const UNCLOSED: Duration = Duration::from_secs(1);

/// What happened to the folder and has not been read yet.
///
/// A file that somebody is writing is not read before it is closed: cut off at the end of a line, half a
/// manifest is often a valid one.
#[derive(Debug, Default)]
pub(super) struct Pending {
    lost: bool,
    everything: bool,
    names: BTreeSet<String>,
    /// When the first of the above came.
    since: Option<Instant>,
    /// Files being written, and when they were written to last.
    writing: HashMap<String, Instant>,
}

impl Pending {
    /// Takes in what inotify says about the folder `dir`.
    pub(super) fn add(&mut self, dir: &Path, event: &notify::Result<Event>, now: Instant) {
        match event {
            Ok(event) => {
                for path in &event.paths {
                    self.add_path(dir, path, event.kind, now);
                }
                self.everything |= event.need_rescan();
            }
            // The queue ran over, or something stranger: only the folder itself can tell.
            Err(_) => self.everything = true,
        }
        if self.lost || self.everything || !self.names.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    fn add_path(&mut self, dir: &Path, path: &Path, kind: EventKind, now: Instant) {
        let is_there_or_not = matches!(
            kind,
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        if path == dir {
            self.lost |= is_there_or_not;
            return;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        // The kubelet swaps all files of a ConfigMap at once, through the link `..data`.
        self.everything |= name.starts_with("..") && is_there_or_not;
        if !is_manifest(name) {
            return;
        }
        match kind {
            EventKind::Create(_) if !path.is_symlink() => self.written(name, now),
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => self.written(name, now),
            // Permissions may have changed, but who writes the file is not done by that.
            EventKind::Modify(ModifyKind::Metadata(_)) => {
                if !self.writing.contains_key(name) {
                    self.names.insert(name.to_owned());
                }
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.done(name),
            EventKind::Access(_) => {}
            _ => self.done(name),
        }
    }

    fn written(&mut self, name: &str, now: Instant) {
        self.names.remove(name);
        self.writing.insert(name.to_owned(), now);
    }

    fn done(&mut self, name: &str) {
        self.writing.remove(name);
        self.names.insert(name.to_owned());
    }

    /// When [`Self::take_due`] will have something, as far as known.
    pub(super) fn due(&self) -> Option<Instant> {
        let unclosed = self.writing.values().map(|written| *written + UNCLOSED);
        unclosed.chain(self.since.map(|since| since + GATHER)).min()
    }

    /// What is to be read now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Scope> {
        let unclosed = self.writing.extract_if(|_, written| *written + UNCLOSED <= now);
        self.names.extend(unclosed.map(|(name, _)| name));
        if !self.names.is_empty() {
            self.since.get_or_insert(now);
        }
        if self.since? + GATHER > now {
            return None;
        }
        self.since = None;
        let names = std::mem::take(&mut self.names);
        let everything = std::mem::take(&mut self.everything);
        if std::mem::take(&mut self.lost) {
            self.writing.clear();
            return Some(Scope::FolderLost);
        }
        if everything {
            // What is still being written comes later, but must not be read before it.
            return Some(Scope::AllBut(self.writing.keys().cloned().collect()));
        }
        Some(Scope::Files(names))
    }
}
