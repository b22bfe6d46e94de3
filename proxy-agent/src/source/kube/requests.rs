use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, core::Collector};
use tower::{Layer, Service};

/// Requests to the API server, counted under the names that every Kubernetes component has for them. A watch is measured
/// until its answer begins, not until it ends. Cloning shares.
#[derive(Clone, Debug)]
pub struct Requests {
    total: IntCounterVec,
    durations: HistogramVec,
}

/// Seconds, as in the client library of the Kubernetes components.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

impl Default for Requests {
    fn default() -> Self {
        let total = Opts::new(
            "rest_client_requests_total",
            "Requests to the API server by status code (<error> where none came), method and host",
        );
        let durations = HistogramOpts::new(
            "rest_client_request_duration_seconds",
            "From a request to the API server to the beginning of its answer, by verb and host",
        );
        let total = IntCounterVec::new(total, &["code", "method", "host"]);
        let durations = HistogramVec::new(durations.buckets(BUCKETS.into()), &["verb", "host"]);
        Self {
            total: total.expect("the name and the labels are well-formed"),
            durations: durations.expect("the name and the labels are well-formed"),
        }
    }
}

impl Requests {
    /// For a registry.
    #[must_use]
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.total.clone()), Box::new(self.durations.clone())]
    }

    fn answered(&self, method: &str, host: &str, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.total.with_label_values(&[code.as_str(), method, host]).inc();
        self.durations.with_label_values(&[method, host]).observe(took.as_secs_f64());
    }
}

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { inner, requests: self.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    requests: Requests,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let requests = self.requests.clone();
        let method = request.method().to_string();
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let start = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            requests.answered(&method, &host, code, start.elapsed());
            answer
        })
    }
}
