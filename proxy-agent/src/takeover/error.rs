use std::io;

use thiserror::Error;

/// Why something of kube-proxy's could not be found or removed, and what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused a question or a change.
    #[error("{doing} (needs CAP_NET_ADMIN in the node's network namespace)")]
    Kernel {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel said something that cannot be read.
    #[error("{doing}: the kernel's answer cannot be read")]
    Answer {
        /// What was being done.
        doing: String,
    },
    /// Somebody else changes rules without a pause.
    #[error(
        "the node's rules were changed by somebody else each time that they were about to be removed: is kube-proxy \
         still running?"
    )]
    Changed,
    /// A file of /proc.
    #[error("reading {path}")]
    File {
        /// Which.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program of iptables-legacy.
    #[error("{command}: {problem}; run it by hand, or restart the node, whose rules are not kept")]
    Command {
        /// As it was called.
        command: String,
        /// What went wrong.
        problem: String,
    },
    /// Several things; all else is gone.
    #[error("{}", list(.0))]
    Some(Vec<Self>),
}

impl Error {
    /// For `map_err`: what was being done.
    pub(super) fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { doing: doing.into(), source }
    }
}

fn list(errors: &[Error]) -> String {
    let lines: Vec<String> = errors
        .iter()
        .map(|error| match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
        .collect();
    lines.join("; ")
}
