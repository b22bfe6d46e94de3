use std::sync::Arc;

use axum::{
    Json, Router,
    extract::RawQuery,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Metrics, version};

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What `/proxyMode` says. None of kube-proxy's words: whoever asks wants to know whose rules to look at.
const MODE: &str = "ferroute";
/// The paths that `/statusz` lists.
const PATHS: [&str; 8] =
    ["/configz", "/flagz", "/healthz", "/metrics", "/metrics/slis", "/proxyMode", "/statusz", "/version"];

/// What those who ask are told besides the metrics.
#[derive(Clone, Debug)]
pub struct About {
    /// The configuration in effect: kube-proxy's fields, with apiVersion and kind.
    pub configuration: Value,
    /// The command line, `--flag=value` each.
    pub flags: Vec<String>,
    /// When the process started.
    pub started: Timestamp,
}

/// What Prometheus and operators ask, by any method (KUBE-PROXY.md 4.9).
pub(super) fn router(metrics: &Arc<Metrics>, about: About) -> Router {
    let about = Arc::new(about);
    let text = |say: fn(&About) -> String| {
        let about = Arc::clone(&about);
        any(move || async move { say(&about) })
    };
    let configuration = json!({ "kubeproxy.config.k8s.io": about.configuration });
    Router::new()
        .route("/metrics", exposition(metrics, |_| true))
        // The health checks alone.
        .route("/metrics/slis", exposition(metrics, |name| name.starts_with("kubernetes_healthcheck")))
        .route("/healthz", any(|RawQuery(query): RawQuery| async move { health(query.as_deref()) }))
        .route("/proxyMode", any(|| async { MODE }))
        .route("/configz", any(move || async move { Json(configuration) }))
        .route("/flagz", text(flags))
        .route("/statusz", text(status))
        .route("/version", any(|| async { Json(release()) }))
}

fn exposition(metrics: &Arc<Metrics>, wanted: fn(&str) -> bool) -> axum::routing::MethodRouter {
    let metrics = Arc::clone(metrics);
    any(move || {
        let metrics = Arc::clone(&metrics);
        // On a thread where it may take its time: health checks are answered meanwhile.
        async move { respond(tokio::task::spawn_blocking(move || metrics.render(wanted)).await) }
    })
}

fn respond(rendered: Result<anyhow::Result<String>, tokio::task::JoinError>) -> Response {
    match rendered.map_err(anyhow::Error::from).flatten() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

/// Says that the process answers, and no more than that: port 10256 tells whether Services are served.
fn health(query: Option<&str>) -> &'static str {
    let verbose =
        query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    if verbose { "[+]ping ok\nhealthz check passed\n" } else { "ok" }
}

fn flags(about: &About) -> String {
    format!(
        "\nkube-proxy flagz\nWarning: This endpoint is not meant to be machine parseable\n\n{}\n",
        about.flags.join("\n")
    )
}

fn status(about: &About) -> String {
    let up = Timestamp::now().duration_since(about.started).as_secs();
    format!(
        "\nkube-proxy statusz\nWarning: This endpoint is not meant to be machine parseable\n\nStarted: {}\nUp: {up} s\n\
         Binary version: {}\nEmulation version: {}\nPaths: {}\n",
        about.started,
        env!("CARGO_PKG_VERSION"),
        version::KUBERNETES,
        PATHS.join(" ")
    )
}

fn release() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": version::KUBERNETES,
        "ferroute": env!("CARGO_PKG_VERSION"),
        "platform": format!("linux/{}", version::ARCHITECTURE),
    })
}
