//! What each thread of the agent may still do once it is set up.
//!
//! Starting takes many rights: mounting, loading programs, raising limits. Serving takes few. [`Privileges::limit`] takes
//! the rest away from the thread that calls it: capabilities (also those that a program could get by being executed),
//! new privileges of any kind, and the system calls that no work of the thread needs. Threads that it starts later are
//! limited like it. Every thread has to be, since capabilities and filters belong to threads.
//!
//! A system call that no list has is refused with EPERM and told of ([`Refusals`]): a proxy that goes on without it is
//! better than one that is killed. Tests end the agent instead, so that a list with a gap is found before it is released.
#![deny(unsafe_code)]

mod capabilities;
mod filter;
mod refused;
mod restart;
mod syscalls;

use std::io;

use thiserror::Error;

pub use refused::{Refusals, on_refusal};
pub use restart::Restarter;
pub(crate) use restart::warn_of;

/// Whether, and how strictly, threads are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privileges {
    /// They keep what the agent was started with.
    #[default]
    Keep,
    /// They keep what their work needs.
    Drop(Unexpected),
}

/// What happens at a system call that is in no list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Unexpected {
    /// It fails with EPERM, and is logged.
    #[default]
    Refuse,
    /// The agent aborts.
    Abort,
}

/// What a thread is for, which decides what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Following objects and links, programming maps, answering health checks: all that steady state is.
    Serve,
    /// Entering the network namespaces of pods as well.
    EnterNamespaces,
    /// Executing the agent once more, which then sets itself up from the beginning. See [`Restarter`].
    Restart,
}

/// Why a thread could not be limited.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused to take something away.
    #[error("giving up {what}")]
    Kernel {
        /// What was to be given up.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no filter for this kernel or processor.
    #[error("installing a filter of system calls (the kernel needs CONFIG_SECCOMP_FILTER): {0}")]
    Filter(String),
}

impl Privileges {
    /// Takes everything from the calling thread that its work does not need. What could not be taken away stays, and
    /// the rest is taken all the same.
    ///
    /// # Errors
    /// The first thing that could not be taken away.
    pub fn limit(self, duty: Duty) -> Result<(), Error> {
        let Self::Drop(unexpected) = self else { return Ok(()) };
        let capabilities = capabilities::limit(duty);
        // Not needed for the filter by root, but wanted by itself: no file can give back what was given up.
        let new = rustix::thread::set_no_new_privs(true)
            .map_err(|error| Error::Kernel { what: "new privileges", source: error.into() });
        refused::prepare(unexpected);
        let filter = filter::install(duty);
        capabilities.and(new).and(filter)
    }
}

#[cfg(test)]
mod tests;
