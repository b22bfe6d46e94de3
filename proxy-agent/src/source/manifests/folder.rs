use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    path::PathBuf,
};

use super::{
    Error, FileProblem, Manifests,
    document::{Document, Fault, Format, Found, documents},
    object::{Key, Kind, Object},
};
use crate::state::{Change, Ingest};

/// How many malformed objects of one file are looked up to the line. Each costs a parse of its document.
const EXACT_LINES: usize = 20;

/// What of the folder to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The files of these names, there or not.
    Files(BTreeSet<String>),
    /// All but the files of these names.
    AllBut(BTreeSet<String>),
    /// The folder has gone: all, once it is back.
    FolderLost,
}

/// What reading again has found.
#[derive(Debug, Default)]
pub(super) struct Update {
    /// Differences, by kind and name.
    pub(super) changes: Vec<Change>,
    /// Problems that were not there before.
    pub(super) problems: Vec<FileProblem>,
}

/// The last good state of a folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    node_name: Box<str>,
    ingest: Ingest,
    files: BTreeMap<String, File>,
    /// Each object, by the names of the files that define it: the first is the one that counts.
    objects: BTreeMap<Key, BTreeMap<String, Placed>>,
}

#[derive(Debug, Default)]
struct File {
    keys: BTreeSet<Key>,
    problems: Vec<Fault>,
}

#[derive(Clone, Debug)]
struct Placed {
    line: usize,
    object: Object,
    /// Whether it was said that a file before this one has the same object.
    said_twice: bool,
}

/// What a file holds now.
#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<Key, Placed>,
    /// Objects that are there, but cannot be read.
    malformed: HashSet<Key>,
    problems: Vec<Fault>,
}

/// Whether a file of this name is a manifest.
pub(super) fn is_manifest(name: &str) -> bool {
    format_of(name).is_some()
}

fn format_of(name: &str) -> Option<Format> {
    if name.starts_with('.') {
        return None;
    }
    match name.rsplit_once('.')?.1 {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

impl Folder {
    pub(super) fn new(dir: PathBuf, node_name: &str) -> Self {
        Self {
            dir,
            node_name: node_name.into(),
            ingest: Ingest::new(node_name),
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    /// Reads everything for the first time.
    pub(super) fn open(&mut self) -> Result<Manifests, Error> {
        let names = self.list().map_err(|cause| Error::Read { dir: self.dir.clone(), cause })?;
        let update = self.read(names);
        let mut manifests = Manifests { problems: update.problems, ..Manifests::default() };
        for change in update.changes {
            match change {
                Change::Service(service) => manifests.services.push(service),
                Change::Slice(slice) => manifests.slices.push(slice),
                Change::Node(node) => manifests.node = node,
                // Nothing was there before that could be gone; addresses are in no file.
                Change::Services(_)
                | Change::Slices(_)
                | Change::ServiceGone(_)
                | Change::SliceGone(_)
                | Change::LocalAddresses(_) => {}
            }
        }
        Ok(manifests)
    }

    /// Reads some or all of it again.
    pub(super) fn update(&mut self, scope: Scope) -> Update {
        let excluded = match scope {
            Scope::Files(names) => return self.read(names),
            Scope::AllBut(excluded) => excluded,
            Scope::FolderLost => BTreeSet::new(),
        };
        match self.list() {
            Ok(mut names) => {
                names.extend(self.files.keys().cloned());
                names.retain(|name| !excluded.contains(name));
                self.read(names)
            }
            Err(error) => {
                let message = format!("cannot read the folder: {error}: its last state stays");
                let problem = FileProblem { file: self.dir.clone(), line: None, message };
                Update { changes: Vec::new(), problems: vec![problem] }
            }
        }
    }

    fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 cannot be the name of a manifest that anyone could be told about.
            if let Ok(name) = entry?.file_name().into_string()
                && is_manifest(&name)
            {
                names.insert(name);
            }
        }
        Ok(names)
    }

    fn read(&mut self, names: BTreeSet<String>) -> Update {
        let mut before: BTreeMap<Key, Option<Object>> = BTreeMap::new();
        let mut update = Update::default();
        for name in names {
            let contents = self.contents(&name);
            let file = self.files.entry(name.clone()).or_default();
            let known = &file.problems;
            let new = contents.problems.iter().filter(|fault| !known.contains(fault));
            update.problems.extend(new.map(|fault| problem(&self.dir, &name, fault.clone())));
            file.problems = contents.problems;

            let Some(objects) = contents.objects else { continue };
            let keys: BTreeSet<Key> = objects.keys().cloned().collect();
            let keys_before = std::mem::replace(&mut file.keys, keys);
            if file.keys.is_empty() && file.problems.is_empty() {
                self.files.remove(&name);
            }
            for key in keys_before.iter().chain(objects.keys()) {
                let effective = || Some(self.objects.get(key)?.first_key_value()?.1.object.clone());
                before.entry(key.clone()).or_insert_with(effective);
            }
            for key in keys_before.iter().filter(|key| !objects.contains_key(*key)) {
                self.objects.entry(key.clone()).or_default().remove(&name);
            }
            for (key, mut placed) in objects {
                let files = self.objects.entry(key).or_default();
                placed.said_twice = files.get(&name).is_some_and(|known| known.said_twice);
                files.insert(name.clone(), placed);
            }
        }
        for (key, before) in before {
            self.settle(key, before, &mut update);
        }
        update
    }

    /// Compares what counts for `key` with what counted before, and says which files define it in vain.
    fn settle(&mut self, key: Key, before: Option<Object>, update: &mut Update) {
        let Some(files) = self.objects.get_mut(&key) else { return };
        let mut others = files.iter_mut();
        let Some((first_name, first)) = others.next() else {
            self.objects.remove(&key);
            if before.is_some() {
                update.changes.push(key.gone());
            }
            return;
        };
        first.said_twice = false;
        let winner = format!("{first_name}:{}", first.line);
        let now = first.object.clone();
        for (name, placed) in others {
            if !std::mem::replace(&mut placed.said_twice, true) {
                let message = format!(
                    "{} is already defined in {winner}: this one is ignored; remove one of them",
                    key.describe()
                );
                update.problems.push(problem(&self.dir, name, Fault { line: Some(placed.line), message }));
            }
        }
        if before.as_ref() != Some(&now) {
            update.changes.push(now.change());
        }
    }

    /// What the file holds; `objects` is `None` where its last good state is to stay.
    fn contents(&mut self, name: &str) -> FileState {
        let was_known = self.files.get(name).is_some_and(|file| !file.keys.is_empty());
        let broken = |fault: Fault| {
            let consequence = if was_known { "its last good state stays" } else { "it is skipped" };
            let message = format!("the file cannot be read: {}: {consequence}", fault.message);
            FileState { objects: None, problems: vec![Fault { line: fault.line, message }] }
        };
        let path = self.dir.join(name);
        // A folder may have such a name; and a pipe would be waited for, with all that come after it.
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return FileState::empty();
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return FileState::empty(),
            Err(error) => return broken(Fault { line: None, message: error.to_string() }),
        };
        let text = match str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
                return broken(Fault { line: Some(line), message: "it is not UTF-8".into() });
            }
        };
        if text.trim().is_empty() && was_known {
            // An editor or a shell redirection cuts a file to nothing before it writes it.
            let message = "it is empty (delete it to remove its objects)".into();
            return broken(Fault { line: None, message });
        }
        match self.parse(name, text) {
            Ok(mut contents) => {
                self.keep_last_good(name, &mut contents);
                FileState { objects: Some(contents.objects), problems: contents.problems }
            }
            Err(fault) => broken(fault),
        }
    }

    /// The last good version of an object that is malformed now stays.
    fn keep_last_good(&self, name: &str, contents: &mut Contents) {
        for key in contents.malformed.drain() {
            if let Some(placed) = self.objects.get(&key).and_then(|files| files.get(name)) {
                contents.objects.entry(key).or_insert_with(|| placed.clone());
            }
        }
    }

    fn parse(&mut self, name: &str, text: &str) -> Result<Contents, Fault> {
        let mut contents = Contents::default();
        // One document after the other: the trees of a large file at once would take many times its size.
        for document in documents(format_of(name).unwrap_or(Format::Yaml), text)? {
            for found in document.objects()? {
                match found {
                    Ok(found) => self.take(found, &mut contents),
                    Err(fault) => contents.problems.push(fault),
                }
            }
        }
        Ok(contents)
    }

    fn take(&mut self, found: Found<'_>, contents: &mut Contents) {
        let Found { document, item, raw } = found;
        let (kind, line) = (raw.kind, document.first_line());
        let key = match kind.key(&raw.tree) {
            Ok(key) => key,
            Err(message) => {
                let message = item.map_or(message.clone(), |item| format!("items[{item}]: {message}"));
                contents.problems.push(Fault { line: Some(line), message });
                return;
            }
        };
        if let Some(first) = contents.objects.get(&key) {
            let message =
                format!("{} is already defined in line {}: this one is ignored", key.describe(), first.line);
            contents.problems.push(Fault { line: Some(line), message });
            return;
        }
        match raw.read(&key, &mut self.ingest, &self.node_name) {
            Ok(Some(object)) => {
                contents.objects.insert(key, Placed { line, object, said_twice: false });
            }
            Ok(None) => {}
            Err(message) => {
                let fault = malformed(&key, message, document, item, kind, contents.malformed.len());
                contents.problems.push(fault);
                contents.malformed.insert(key);
            }
        }
    }
}

/// What [`Folder::contents`] makes of a file.
struct FileState {
    objects: Option<BTreeMap<Key, Placed>>,
    problems: Vec<Fault>,
}

impl FileState {
    fn empty() -> Self {
        Self { objects: Some(BTreeMap::new()), problems: Vec::new() }
    }
}

fn malformed(
    key: &Key,
    message: String,
    document: Document<'_>,
    item: Option<usize>,
    kind: Kind,
    before: usize,
) -> Fault {
    let exact = if before < EXACT_LINES { Found::fault(document, item, kind) } else { None };
    let Fault { line, message } = exact.unwrap_or(Fault { line: Some(document.first_line()), message });
    let item = item.map_or_else(String::new, |item| format!(" (items[{item}])"));
    let consequence = "it is skipped, and its last good version stays where there is one";
    Fault { line, message: format!("{}{item} is malformed: {message}: {consequence}", key.describe()) }
}

fn problem(dir: &std::path::Path, name: &str, fault: Fault) -> FileProblem {
    FileProblem { file: dir.join(name), line: fault.line, message: fault.message }
}
