//! A place of the lab where code can run: a network namespace, and the cgroup of a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context;

use super::addr::Addresses;
use super::mounts::Mounts;
use super::netns::Netns;
use super::session::Ticket;

/// A pod, a node or an outside client. Cheap to clone; the lab stays up while one is held.
#[derive(Clone, Debug)]
pub struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    addresses: Addresses,
    /// Name of the other end of its `eth0`.
    link: String,
    netns: Netns,
    /// None outside of the cluster: no agent's programs apply there.
    cgroup: Option<PathBuf>,
    /// Only on a node: pods have nothing to do with its bpffs.
    mounts: Option<Arc<Mounts>>,
    lab: Arc<Ticket>,
}

impl Place {
    pub(super) fn new(
        name: &str,
        addresses: Addresses,
        link: &str,
        netns: Netns,
        cgroup: Option<PathBuf>,
        mounts: Option<Arc<Mounts>>,
        lab: Arc<Ticket>,
    ) -> Self {
        let (name, link) = (name.to_owned(), link.to_owned());
        Self(Arc::new(Inner { name, addresses, link, netns, cgroup, mounts, lab }))
    }

    /// The name that its servers answer with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its IPv4 and IPv6 address.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.0.addresses
    }

    /// What the other end of its `eth0` is called: on the router, or for a pod on its node.
    #[must_use]
    pub fn link(&self) -> &str {
        &self.0.link
    }

    /// A folder that goes away with the lab.
    pub(super) fn scratch(&self) -> &Path {
        &self.0.lab.scratch
    }

    /// The same network, but in no node's cgroup: no agent's programs apply. What a benchmark compares with.
    #[must_use]
    pub fn without_programs(&self) -> Self {
        let Inner { name, addresses, link, netns, cgroup: _, mounts, lab } = &*self.0;
        Self::new(name, *addresses, link, netns.clone(), None, mounts.clone(), Arc::clone(lab))
    }

    pub(super) fn netns(&self) -> &Netns {
        &self.0.netns
    }

    /// Runs a closure here, on a thread of its own, and hands back what it returns. Sockets that it
    /// makes belong to this place for ever. A panic inside goes on in the caller.
    ///
    /// # Panics
    /// When the place cannot be entered, and when the closure panics.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let here = thread::Builder::new().name(self.0.name.clone()).spawn_scoped(scope, || {
                self.must_enter();
                task()
            });
            let here = here.unwrap_or_else(|error| panic!("starting a thread in {}: {error}", self.name()));
            here.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a closure here in the background.
    ///
    /// # Panics
    /// When no thread can be started; the thread panics when the place cannot be entered.
    pub fn spawn<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let place = self.clone();
        let started = thread::Builder::new().name(self.0.name.clone()).spawn(move || {
            place.must_enter();
            task()
        });
        started.unwrap_or_else(|error| panic!("starting a thread in {}: {error}", self.name()))
    }

    fn must_enter(&self) {
        if let Err(error) = self.enter() {
            super::wait_if_stopping();
            panic!("entering {}: {error:#}", self.name());
        }
    }

    fn enter(&self) -> anyhow::Result<()> {
        let inner = &*self.0;
        if let Some(cgroup) = &inner.cgroup {
            super::cgroup::move_this_thread(cgroup)?;
        }
        if let Some(mounts) = &inner.mounts {
            mounts.enter()?;
        }
        inner.netns.enter().with_context(|| format!("entering {}", inner.name))
    }
}
