use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};

use super::{Health, NO_SNIFF, Question};

/// What load balancers and the kubelet ask, by any method (KUBE-PROXY.md 4.8).
pub(super) fn router(health: &Arc<Health>) -> Router {
    let answer = |question| {
        let health = Arc::clone(health);
        any(move || async move { respond(&health, question) })
    };
    Router::new()
        .route("/healthz", answer(Question::Healthz))
        .route("/livez", answer(Question::Livez))
        .route("/readyz", answer(Question::Readyz))
}

fn respond(health: &Health, question: Question) -> Response {
    let answer = health.answer(question);
    let code = if answer.good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [NO_SNIFF], Json(answer)).into_response()
}
