//! A private mount namespace with a bpffs for each node. Nothing of it is seen outside, and all of
//! it goes with its last user, pins included: also after a SIGKILL.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// A mount namespace of the lab.
#[derive(Debug)]
pub(super) struct Mounts(File);

impl Mounts {
    /// Copies the machine's mounts into a namespace from which nothing flows back.
    pub(super) fn new() -> anyhow::Result<Self> {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (needs root)")?;
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                    .context("making the lab's mounts private")?;
                File::open("/proc/thread-self/ns/mnt").context("opening the new mount namespace")
            });
            made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(Self)
        })
    }

    /// Moves the calling thread there, keeping its working directory.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        // A thread shares its root and working directory with the process until it says otherwise,
        // and the kernel moves no thread that shares them.
        unshare(CloneFlags::CLONE_FS).context("giving a thread a working directory of its own")?;
        setns(&self.0, CloneFlags::CLONE_NEWNS).context("entering the lab's mount namespace")?;
        nix::unistd::chdir(&here).with_context(|| format!("going back to {}", here.display()))
    }

    /// Mounts a new bpffs on `path`, seen only in this namespace.
    pub(super) fn add_bpffs(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                self.enter()?;
                mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
                    .with_context(|| format!("mounting a bpffs on {}", path.display()))
            });
            done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
