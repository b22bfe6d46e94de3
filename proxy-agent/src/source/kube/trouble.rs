use std::{io, time::Duration};

use kube::core::Status;
use thiserror::Error;

/// Why a list or watch did not go on. All of it passes, or is waited for: the source never gives up.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// The server has forgotten the resource version: list again.
    #[error("the API server no longer has the resource version we were at")]
    Gone,
    /// The server answered with an error.
    #[error("the API server answers {code}: {message}{hint}", code = .0.code, message = .0.message, hint = hint(.0.code))]
    Refused(Box<Status>),
    /// No connection, or no response.
    #[error("no answer from the API server: {}", chain(.0))]
    Unreachable(kube::Error),
    /// The connection broke in the middle.
    #[error("the connection to the API server broke: {0}")]
    Broken(io::Error),
    /// Nothing came for too long.
    #[error("no word from the API server for {} s", .0.as_secs())]
    Silent(Duration),
    /// What came is not what the API promises.
    #[error("not understood: {0}")]
    Garbage(String),
    /// The watch ended as soon as it had begun.
    #[error("the API server ended the watch at once")]
    Short,
}

impl Trouble {
    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(status) => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                Duration::from_secs(u64::from(seconds))
            }
            _ => Duration::ZERO,
        }
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => status.into(),
            other => Self::Unreachable(other),
        }
    }
}

impl From<Box<Status>> for Trouble {
    fn from(status: Box<Status>) -> Self {
        if status.code == 410 { Self::Gone } else { Self::Refused(status) }
    }
}

/// An error with its causes: "client error" alone helps nobody.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn hint(code: u16) -> &'static str {
    match code {
        401 => " (check the credentials in the kubeconfig, or the service account's token)",
        403 => " (the agent's ClusterRole has to allow list and watch on this resource)",
        _ => "",
    }
}
