//! What the agent says of itself: to load balancers and the kubelet over HTTP, and to people by events. It reads
//! what the others know, and changes nothing of what is programmed.

mod events;
mod health;
mod health_checks;
mod health_server;
mod listener;
mod metrics;
mod metrics_server;
mod observer;
pub mod version;

use axum::http::{HeaderName, HeaderValue, header};

pub use events::{Event, Events};
pub use health::{Answer, Health, Question};
pub use metrics::{Metrics, ServicesLimit, Triggers};
pub use metrics_server::About;
pub use observer::{Observation, Observer, Options, start};

/// For every answer in JSON, as kube-proxy gives it.
const NO_SNIFF: (HeaderName, HeaderValue) =
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
