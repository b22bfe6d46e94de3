use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};

use super::{
    Shared, events, gone, lock,
    object::{Key, Kind},
    rbac::Asked,
    requests::Request,
    selector::Selector,
    status,
    watch::{From, Watch},
};

/// What the owner wants of the server's thread. It drops the sender when that is done.
#[derive(Debug)]
pub(super) enum Order {
    Away(mpsc::Sender<()>),
    Back(mpsc::Sender<()>),
    Stop(mpsc::Sender<()>),
}

/// The thread of the server: serves whenever it is not away.
pub(super) fn run(
    shared: &Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    mut orders: UnboundedReceiver<Order>,
) {
    let mut listener = Some(listener);
    loop {
        let order = match listener.take() {
            // The runtime is dropped before the order counts as done, and its connections with it: to the
            // clients that is a server that died.
            Some(listener) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(serve(shared, listener, &mut orders)),
                Err(error) => return eprintln!("test API server: starting its runtime: {error}"),
            },
            None => orders.blocking_recv(),
        };
        match order {
            Some(Order::Away(done)) => drop(done),
            Some(Order::Back(done)) => {
                match TcpListener::bind(address) {
                    Ok(bound) => listener = Some(bound),
                    Err(error) => eprintln!("test API server: binding {address} again: {error}"),
                }
                drop(done);
            }
            Some(Order::Stop(done)) => return drop(done),
            None => return,
        }
    }
}

/// Serves until there is an order.
async fn serve(
    shared: &Arc<Shared>,
    listener: TcpListener,
    orders: &mut UnboundedReceiver<Order>,
) -> Option<Order> {
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let router = Router::new().fallback(handle).with_state(Arc::clone(shared));
    let served = async {
        let failed = match listener {
            Ok(listener) => axum::serve(listener, router).await.err(),
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            eprintln!("test API server: serving: {error}");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        order = orders.recv() => order,
        () = served => None,
    }
}

/// The query of a list or watch.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Params {
    watch: Option<String>,
    label_selector: String,
    field_selector: String,
    resource_version: String,
    limit: usize,
    r#continue: String,
    timeout_seconds: Option<u64>,
    allow_watch_bookmarks: Option<String>,
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(params): Query<Params>,
    body: Bytes,
) -> Response {
    let request = Request::new(method.as_str(), uri.path(), uri.query().unwrap_or_default());
    shared.requests.add(request.clone());
    if let Some(refusal) = forbidden(&shared, request) {
        return failure(&status(403, "Forbidden", &refusal));
    }
    let kind = Kind::at(uri.path());
    let events_of = events::namespace_at(uri.path());
    let refused = kind.and_then(|kind| lock(&shared.refusing_kinds).get(&kind).copied());
    let refused = refused.or(events_of.and_then(|_| shared.events.refusing()));
    if let Some(code) = refused.or(*lock(&shared.refusing)) {
        return failure(&status(code, "ServiceUnavailable", "refused by the test"));
    }
    if let (Some(namespace), &Method::POST) = (events_of, &method) {
        return match shared.events.create(namespace, &body) {
            Ok(event) => json_response(StatusCode::CREATED, Body::from(event.to_string())),
            Err(status) => failure(&status),
        };
    }
    let Some(kind) = kind else {
        return failure(&status(404, "NotFound", "the server could not find the requested resource"));
    };
    if method != Method::GET {
        return failure(&status(405, "MethodNotAllowed", "the test API server is for reading only"));
    }
    let selector = match Selector::parse(&params.label_selector, &params.field_selector) {
        Ok(selector) => selector,
        Err(message) => return failure(&status(400, "BadRequest", &message)),
    };
    match params.watch.as_deref() {
        Some("true" | "1") => watch(&shared, kind, selector, &params),
        _ => list(&shared, kind, &selector, &params),
    }
}

/// Why a request is not allowed.
fn forbidden(shared: &Shared, request: Request) -> Option<String> {
    let rules = lock(&shared.rules);
    let asked = Asked::new(&request.method, &request.path, &request.query);
    let refusal = match (rules.as_ref()?, asked) {
        (rules, Some(asked)) if rules.allow(&asked) => return None,
        (_, Some(asked)) => asked.refusal(),
        (_, None) => format!("forbidden: User \"lab\" cannot {} path {:?}", request.method, request.path),
    };
    lock(&shared.forbidden).push(request);
    Some(refusal)
}

fn watch(shared: &Arc<Shared>, kind: Kind, selector: Selector, params: &Params) -> Response {
    let from = match params.resource_version.as_str() {
        "" | "0" => From::Now,
        text => match text.parse() {
            Ok(version) => From::Version(version),
            Err(_) => {
                return failure(&status(400, "BadRequest", &format!("invalid resource version {text:?}")));
            }
        },
    };
    if let From::Version(version) = from {
        let oldest = shared.store().oldest();
        if version < oldest {
            // The API server answers 200 and says so in the stream.
            let event = serde_json::json!({"type": "ERROR", "object": gone(oldest)});
            return json_response(StatusCode::OK, Body::from(format!("{event}\n")));
        }
    }
    let timeout = Duration::from_secs(params.timeout_seconds.unwrap_or(1800));
    let bookmarks = matches!(params.allow_watch_bookmarks.as_deref(), Some("true" | "1"));
    let watch = Watch::open(shared, kind, selector, from, bookmarks, Instant::now() + timeout);
    json_response(StatusCode::OK, Body::from_stream(watch.into_stream()))
}

fn list(shared: &Arc<Shared>, kind: Kind, selector: &Selector, params: &Params) -> Response {
    let store = shared.store();
    // A continued list goes on with the resource version of its first page: what has changed since then, on
    // pages already read, comes with the watch.
    let (version, after) = match parse_continue(kind, &params.r#continue) {
        None if params.r#continue.is_empty() => (store.version(), None),
        None => return failure(&status(400, "BadRequest", "continue key is not valid")),
        Some((version, _)) if version < store.oldest() => return failure(&gone(store.oldest())),
        Some((version, key)) => (version, Some(key)),
    };
    let limit = if params.limit == 0 { usize::MAX } else { params.limit };
    let mut items = String::new();
    let (mut count, mut last, mut more) = (0, None, false);
    for (version, object) in store.list(kind, after.as_ref()).filter(|(_, object)| selector.matches(object)) {
        if count == limit {
            more = true;
            break;
        }
        if count > 0 {
            items.push(',');
        }
        items.push_str(&object.list_item(version));
        count += 1;
        last = Some(&object.key);
    }
    let next = match last {
        Some(key) if more => format!(r#","continue":"{version}:{}:{}""#, key.namespace, key.name),
        _ => String::new(),
    };
    let body = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{{"resourceVersion":"{version}"{next}}},"items":[{items}]}}"#,
        kind.name(),
        kind.api_version(),
    );
    json_response(StatusCode::OK, Body::from(body))
}

/// `version:namespace:name`; no name of Kubernetes has a colon.
fn parse_continue(kind: Kind, text: &str) -> Option<(u64, Key)> {
    let (version, key) = text.split_once(':')?;
    let (namespace, name) = key.split_once(':')?;
    Some((version.parse().ok()?, Key::new(kind, namespace, name)))
}

fn failure(status: &Value) -> Response {
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.and_then(|code| StatusCode::from_u16(code).ok());
    json_response(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Body::from(status.to_string()))
}

fn json_response(code: StatusCode, body: Body) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
