//! A folder of manifests as the source of objects, for hosts without an API server.
//!
//! Every `*.yaml`, `*.yml` and `*.json` file of the folder itself counts (not of folders inside it, and not
//! files whose name starts with a dot), with every document and list item of kind Service, EndpointSlice and
//! this node's Node. What the selectors of a watch would keep back is kept back here too
//! (KUBE-PROXY.md 1.1). Symbolic links are followed, also when they are swapped the way the kubelet swaps
//! those of a ConfigMap; a change of a link's target elsewhere is not noticed.

mod document;
mod folder;
mod object;
mod pending;
mod problem;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc::{self, Sender, UnboundedReceiver},
    task,
    time::{Instant, sleep, sleep_until},
};

use crate::state::{Change, EndpointSlice, Node, Service};
use folder::{Folder, Scope, Update};
use pending::Pending;
pub use problem::FileProblem;

/// Pause between attempts to find a folder again that went away.
const RETRY: Duration = Duration::from_secs(1);

/// Why a folder of manifests cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there or cannot be read.
    #[error("cannot read the manifest folder {}: {cause}; create it, or name another", dir.display())]
    Read {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The folder cannot be followed.
    #[error("cannot follow the manifest folder {}: {cause}; see the limits in /proc/sys/fs/inotify", dir.display())]
    Watch {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        cause: notify::Error,
    },
}

/// What a folder of manifests holds.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Its Services, by name.
    pub services: Vec<Service>,
    /// Its EndpointSlices, by name.
    pub slices: Vec<EndpointSlice>,
    /// This node's Node.
    pub node: Option<Node>,
    /// What could not be read. What is wrong inside an object is said in the object.
    pub problems: Vec<FileProblem>,
}

impl Manifests {
    /// The complete lists, as a source sends them first.
    #[must_use]
    pub fn into_changes(self) -> [Change; 3] {
        [Change::Services(self.services), Change::Slices(self.slices), Change::Node(self.node)]
    }
}

/// Reads a folder once.
///
/// # Errors
/// When the folder cannot be read; a file or object that cannot is a problem of the result.
pub fn load(dir: PathBuf, node_name: &str) -> Result<Manifests, Error> {
    let mut folder = Folder::new(dir, node_name);
    folder.open()
}

/// Reads a folder, sends the complete lists, and then each change as it happens, until nobody receives them
/// any more. A file that is half-written or broken keeps its last good state, and a malformed object its last
/// good version; both are logged with file and line. So does everything when the folder itself goes away.
///
/// # Errors
/// When the folder cannot be read or followed at the start.
pub async fn follow(dir: PathBuf, node_name: String, changes: Sender<Change>) -> Result<(), Error> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event| {
        // Fails only once nobody follows any more.
        let _ = sender.send(event);
    })
    .map_err(|cause| Error::Watch { dir: dir.clone(), cause })?;
    // Before the first read, so that a change in between is seen.
    watch(&mut watcher, &dir)?;

    let mut folder = Folder::new(dir.clone(), &node_name);
    let (mut folder, manifests) = blocking(move || {
        let manifests = folder.open();
        (folder, manifests)
    })
    .await;
    let manifests = manifests?;
    log(&manifests.problems);
    for change in manifests.into_changes() {
        if changes.send(change).await.is_err() {
            return Ok(());
        }
    }

    let mut pending = Pending::default();
    loop {
        let Some(scope) = next(&dir, &mut events, &mut pending, &changes).await else { return Ok(()) };
        if scope == Scope::FolderLost {
            tracing::warn!("the manifest folder {} is gone: its last state stays", dir.display());
            // Fails where the kernel has dropped the watch with the folder.
            let _ = watcher.unwatch(&dir);
            while watch(&mut watcher, &dir).is_err() {
                tokio::select! {
                    () = sleep(RETRY) => {}
                    () = changes.closed() => return Ok(()),
                }
            }
            tracing::info!("the manifest folder {} is back", dir.display());
        }
        let update: Update;
        (folder, update) = blocking(move || {
            let update = folder.update(scope);
            (folder, update)
        })
        .await;
        log(&update.problems);
        for change in update.changes {
            if changes.send(change).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Waits until some of the folder is to be read again; `None` when nobody receives changes any more.
async fn next(
    dir: &std::path::Path,
    events: &mut UnboundedReceiver<notify::Result<notify::Event>>,
    pending: &mut Pending,
    changes: &Sender<Change>,
) -> Option<Scope> {
    loop {
        if let Some(scope) = pending.take_due(Instant::now()) {
            return Some(scope);
        }
        let due = pending.due();
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = changes.closed() => return None,
            event = events.recv() => pending.add(dir, &event?, Instant::now()),
            () = timer => {}
        }
    }
}

fn watch(watcher: &mut RecommendedWatcher, dir: &PathBuf) -> Result<(), Error> {
    // So that a folder which is missing is told from one that cannot be followed.
    std::fs::read_dir(dir).map_err(|cause| Error::Read { dir: dir.clone(), cause })?;
    watcher.watch(dir, RecursiveMode::NonRecursive).map_err(|cause| Error::Watch { dir: dir.clone(), cause })
}

/// Reading and parsing a large folder takes long enough to hold up other tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is shutting down, and this task is not polled again.
            Err(_) => std::future::pending().await,
        },
    }
}

fn log(problems: &[FileProblem]) {
    for problem in problems {
        tracing::warn!("{problem}");
    }
}
