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
                // The API server's own answer to too many requests is plain text with a header that kube does
                // not hand on, of a second or more.
                let least = u32::from(status.code == 429);
                Duration::from_secs(u64::from(seconds.max(least)))
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether other credentials, or other certificates to trust, could have made a difference.
    pub(super) fn is_of_credentials(&self) -> bool {
        match self {
            Self::Refused(status) => status.code == 401,
            // Buried in boxed errors of three libraries; their texts all name it.
            Self::Unreachable(error) => chain(error).to_lowercase().contains("certificate"),
            _ => false,
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
        404 => " (is this the URL of an API server, and of Kubernetes 1.21 or later?)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, seconds: u32) -> Trouble {
        let mut status = Status::failure("no", "NoReason").with_code(code);
        if seconds > 0 {
            status.details =
                serde_json::from_value(serde_json::json!({"retryAfterSeconds": seconds})).unwrap();
        }
        Trouble::Refused(Box::new(status))
    }

    #[test]
    fn who_is_too_busy_is_left_alone() {
        for (code, seconds, expected) in [(429, 0, 1), (429, 5, 5), (503, 3, 3), (503, 0, 0), (401, 0, 0)] {
            assert_eq!(refused(code, seconds).retry_after().as_secs(), expected, "{code}, {seconds} s");
        }
        assert_eq!(Trouble::Short.retry_after(), Duration::ZERO);
    }

    #[test]
    fn what_to_do_is_said() {
        for (code, word) in [(401, "credentials"), (403, "ClusterRole"), (404, "1.21")] {
            let text = refused(code, 0).to_string();
            assert!(text.contains(&code.to_string()) && text.contains(word), "{text}");
        }
        assert!(refused(401, 0).is_of_credentials());
        assert!(!refused(403, 0).is_of_credentials());
    }
}
