//! Sockets whose endpoint is gone (KUBE-PROXY.md 3.1; kube-proxy clears connection tracking for this).
//!
//! A connected UDP socket has picked its endpoint at connect(), and no program of ours runs for its datagrams: when the
//! endpoint is gone it would talk to nobody for ever. It cannot be moved from outside either. So it is destroyed: its
//! owner gets `ECONNABORTED` from recv() and poll(), or `EDESTADDRREQ` from send(), and connects again. What is destroyed is exactly what was
//! sent to the endpoint by a Service which has it no longer: the socket's own storage says so. TCP connections end by
//! themselves, if late; they are closed on request only, and only when the endpoint is in no slice of the Service.
//!
//! A thread of its own does it, because it enters other network namespaces. It needs `CAP_SYS_ADMIN` to enter one,
//! `CAP_NET_ADMIN` to destroy a socket in it, and `CAP_SYS_PTRACE` to find it by a process of another user. Finding the
//! sockets needs nothing once the program is loaded (`CAP_BPF` and `CAP_PERFMON`, at the start).

mod destroy;
mod finder;
mod namespaces;
mod pass;
mod totals;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::{finder::Finder, namespaces::Namespaces, pass::Work};
use super::{Error, maps::Maps, pins::Layout, programmer::Programmer};
use crate::privileges::{Duty, Privileges, warn_of};

pub use totals::SocketTotals;

/// Looks after a change, counted from it. The first finds all that was connected by then; the others, who was between
/// the choice of the endpoint and the connection to it, in the kernel.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(10)];

/// The thread that closes sockets whose endpoint is gone. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sockets {
    totals: Arc<SocketTotals>,
    /// `None` when this kernel does not let it.
    asked: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sockets {
    /// Prepares everything that needs rights at the start. A kernel that cannot do it is warned of, once.
    ///
    /// # Errors
    /// No thread can be made.
    pub(crate) fn start(
        object: &[u8],
        layout: &Layout,
        cgroup: &Path,
        programmer: Arc<Mutex<Programmer<Maps>>>,
        with_tcp: bool,
        privileges: Privileges,
    ) -> Result<Self, Error> {
        let totals = Arc::new(SocketTotals::default());
        let finder = match Finder::new(object, layout, with_tcp) {
            Ok(finder) => finder,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "sockets whose endpoint is gone cannot be found: a connected UDP socket goes on sending to it until \
                     its program connects again"
                );
                return Ok(Self { totals, asked: None, thread: None });
            }
        };
        let (asked, requests) = sync_channel(1);
        let (limited, is_limited) = sync_channel(1);
        let (cgroup, work_totals) = (cgroup.to_owned(), Arc::clone(&totals));
        let thread = thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || {
                warn_of(privileges.limit(Duty::EnterNamespaces));
                let _waiting = limited.send(());
                match Namespaces::new(&cgroup) {
                    Ok(namespaces) => run(&requests, Work::new(finder, namespaces, programmer, work_totals)),
                    Err(error) => {
                        tracing::warn!(%error, "opening the agent's own network namespace: no socket is closed");
                    }
                }
            })
            .map_err(|source| Error::Thread { what: "closes sockets whose endpoint is gone", source })?;
        // Nothing is read from outside while a thread has more rights than it needs.
        let _ended = is_limited.recv();
        Ok(Self { totals, asked: Some(asked), thread: Some(thread) })
    }

    /// Endpoints have gone. Does not wait.
    pub(crate) fn look(&self) {
        if let Some(asked) = &self.asked {
            // When there is a request already, that one will do.
            let _full = asked.try_send(());
        }
    }

    /// What has been done so far.
    pub(crate) fn totals(&self) -> &Arc<SocketTotals> {
        &self.totals
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked it has said so, and there is nothing left to do.
            let _ended = thread.join();
        }
    }
}

/// Looks when asked to, and again later. Changes that come while it is at work are taken together.
fn run(requests: &Receiver<()>, mut work: Work) {
    let mut due: Vec<Instant> = Vec::new();
    loop {
        let request = match due.iter().min() {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(next) => requests.recv_timeout(next.saturating_duration_since(Instant::now())),
        };
        let now = Instant::now();
        match request {
            Ok(()) => due = LOOKS.iter().map(|after| now + *after).collect(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if due.iter().any(|due| *due <= now) {
            due.retain(|due| *due > now);
            let worked = work.pass();
            // At most half of a CPU, however fast endpoints come and go.
            thread::sleep(worked.min(Duration::from_secs(1)));
        }
    }
}
