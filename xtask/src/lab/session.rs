//! What all labs of a process share: the cgroup root and a scratch folder. Opened by the first lab,
//! closed after the last, and closed at once by [`abandon`] when the process is told to stop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::cgroup;

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

#[derive(Debug)]
struct Session {
    users: usize,
    /// Labs made so far: no two of them get the same folder.
    labs: usize,
    // In the order in which they are to be dropped.
    cgroup: cgroup::Root,
    scratch: Scratch,
}

/// One lab's share of the session.
#[derive(Debug)]
pub(super) struct Ticket {
    /// This lab's cgroup, a threaded one.
    pub(super) cgroup: PathBuf,
    /// This lab's folder on disk.
    pub(super) scratch: PathBuf,
}

impl Ticket {
    pub(super) fn take(lab: &str) -> anyhow::Result<Self> {
        let mut current = lock();
        if current.is_none() {
            let scratch = Scratch::new()?;
            *current = Some(Session { users: 0, labs: 0, cgroup: cgroup::Root::enter()?, scratch });
        }
        let session = current.as_mut().context("the session was just opened")?;
        session.labs += 1;
        session.users += 1;
        let name = format!("{lab}-{}", session.labs);
        // From here on the ticket's Drop gives the share back, also when the rest fails.
        let ticket = Self {
            cgroup: session.cgroup.path().join(&name),
            scratch: session.scratch.folder.path().join(&name),
        };
        drop(current);
        cgroup::make_threaded(&ticket.cgroup)?;
        fs::create_dir(&ticket.scratch)
            .with_context(|| format!("making the lab's folder {}", ticket.scratch.display()))?;
        Ok(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut current = lock();
        let Some(session) = current.as_mut() else { return };
        // The last to let go of a lab may be a thread of its own, which is in what is to be removed.
        let out = session.cgroup.leave(&self.cgroup);
        if let Err(error) = out.and_then(|()| cgroup::remove_tree(&self.cgroup)) {
            eprintln!("lab: leaving a cgroup behind: {error:#}");
        }
        session.users -= 1;
        if session.users == 0 {
            *current = None;
        }
    }
}

/// Takes the process out of the lab's cgroup and removes what is on disk, whoever still uses it: for
/// a process that is about to exit.
pub(super) fn abandon() {
    // The lock may be held by a thread that is building a lab; it is only worth a short wait.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Ok(mut current) = SESSION.try_lock() {
            *current = None;
            return;
        }
        if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lock() -> MutexGuard<'static, Option<Session>> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder that is locked while its process lives, so that a later lab can tell what is stale.
#[derive(Debug)]
struct Scratch {
    folder: TempDir,
    _lock: Flock<File>,
}

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        sweep(&std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix(cgroup::PREFIX).tempdir();
        let folder = folder.context("making the lab's folder for temporary files")?;
        let lock = try_lock(folder.path()).with_context(|| format!("locking {}", folder.path().display()))?;
        Ok(Self { folder, _lock: lock })
    }
}

fn try_lock(path: &Path) -> Option<Flock<File>> {
    Flock::lock(File::open(path).ok()?, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes what killed labs left: folders that nobody has locked.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(cgroup::PREFIX));
        // One that has just been made may not be locked yet.
        let age = entry.metadata().ok().and_then(|data| data.modified().ok()?.elapsed().ok());
        if ours
            && age.is_some_and(|age| age > Duration::from_secs(5))
            && let Some(_stale) = try_lock(&entry.path())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            eprintln!("lab: cannot remove {}: {error}", entry.path().display());
        }
    }
}
