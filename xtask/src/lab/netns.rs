//! Anonymous network namespaces: no name in /run/netns, so nothing to forget there. The kernel
//! removes one with the last file descriptor and thread that holds it, also after a SIGKILL.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use anyhow::Context;
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as a clone of this value (and the threads inside).
#[derive(Clone, Debug)]
pub(super) struct Netns(Arc<File>);

impl Netns {
    /// Makes an empty namespace. A helper thread does it, because unshare() moves its caller.
    pub(super) fn new() -> anyhow::Result<Self> {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (needs root)")?;
                File::open("/proc/thread-self/ns/net").context("opening the new network namespace")
            });
            made.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map(|namespace| Self(Arc::new(namespace)))
        })
    }

    /// Moves the calling thread into this namespace. There is no way back: for short-lived threads.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).context("entering a network namespace of the lab")
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sets `net.<key>` (slashes, not dots) inside this namespace only.
    pub(super) fn sysctl(&self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                // /proc/sys/net shows the namespace of whoever looks it up.
                self.enter()?;
                for (key, value) in settings {
                    fs::write(format!("/proc/sys/net/{key}"), value)
                        .with_context(|| format!("setting net/{key} to {value} in a namespace of the lab"))?;
                }
                Ok(())
            });
            done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
