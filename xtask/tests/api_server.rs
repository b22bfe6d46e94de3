//! The test API server over plain HTTP, as any client sees it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::api_server::{ApiServer, Cut, Kind};

const SERVICES: &str = "/api/v1/services";
const LIVE: &str =
    "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&fieldSelector=spec.clusterIP%21%3DNone";

/// A client that knows just enough HTTP/1.1: status line, headers, chunked bodies.
struct Response {
    code: u16,
    chunked: bool,
    reader: BufReader<TcpStream>,
}

impl Response {
    fn get(address: SocketAddr, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("connecting to the API server");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let code = line.split(' ').nth(1).expect("a status line").parse().unwrap();
        let mut chunked = false;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                return Self { code, chunked, reader };
            }
            chunked |= line.to_lowercase().starts_with("transfer-encoding: chunked");
        }
    }

    /// The next chunk; `None` at the proper end, an error when the connection breaks.
    fn chunk(&mut self) -> std::io::Result<Option<String>> {
        assert!(self.chunked, "a watch is chunked");
        let mut size = String::new();
        self.reader.read_line(&mut size)?;
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let mut data = vec![0; size + 2];
        self.reader.read_exact(&mut data)?;
        data.truncate(size);
        Ok((size > 0).then(|| String::from_utf8(data).unwrap()))
    }

    fn event(&mut self) -> (String, Value) {
        let line = self.chunk().expect("an unbroken stream").expect("an event before the end");
        let mut event: Value = serde_json::from_str(&line).expect("JSON");
        (event["type"].as_str().unwrap().to_owned(), event["object"].take())
    }

    fn json(mut self) -> Value {
        let mut body = String::new();
        self.reader.read_to_string(&mut body).unwrap();
        serde_json::from_str(&body).expect("JSON")
    }
}

fn service(name: &str) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.1"}})
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn version(list: &Value) -> &str {
    list["metadata"]["resourceVersion"].as_str().unwrap()
}

fn watch(server: &ApiServer, from: &str, more: &str) -> Response {
    let target = format!("{SERVICES}?watch=true&resourceVersion={from}&{more}");
    let open = server.open_watches();
    let response = Response::get(server.address(), &target);
    let started = Instant::now();
    while response.code == 200 && server.open_watches() == open && started.elapsed() < Duration::from_secs(5)
    {
        std::thread::yield_now();
    }
    response
}

#[test]
fn lists_come_in_pages_of_what_is_selected() {
    let server = ApiServer::on_loopback().unwrap();
    let items: Vec<_> = (0..5).map(|number| service(&format!("s{number}"))).collect();
    server.apply(json!({"kind": "List", "items": items})).unwrap();
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = "None".into();
    let mut foreign = service("s2");
    foreign["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": ""});
    server.apply(json!([headless, foreign])).unwrap();

    let first = Response::get(server.address(), &format!("{SERVICES}?limit=3&{LIVE}")).json();
    assert_eq!(names(&first), ["s0", "s1", "s3"]);
    let token = first["metadata"]["continue"].as_str().expect("there is a second page");
    server.apply(service("s9")).unwrap();
    let second =
        Response::get(server.address(), &format!("{SERVICES}?limit=3&continue={token}&{LIVE}")).json();
    assert_eq!(names(&second), ["s4", "s9"]);
    assert_eq!(version(&second), version(&first), "the watch starts after the first page");
    assert!(second["metadata"]["continue"].is_null());

    let node = json!({"kind": "Node", "metadata": {"name": "n1"}});
    server.apply(node).unwrap();
    let target = "/api/v1/nodes?fieldSelector=metadata.name%3Dn1";
    assert_eq!(names(&Response::get(server.address(), target).json()), ["n1"]);
    let target = "/apis/discovery.k8s.io/v1/endpointslices";
    assert!(names(&Response::get(server.address(), target).json()).is_empty());

    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", SERVICES));
    assert_eq!(
        request.query,
        "limit=3&labelSelector=!service.kubernetes.io/service-proxy-name&fieldSelector=spec.clusterIP!=None"
    );
}

#[test]
fn a_watch_sees_changes_as_its_selector_does() {
    let server = ApiServer::on_loopback().unwrap();
    server.apply(service("web")).unwrap();
    let list = Response::get(server.address(), SERVICES).json();
    let mut stream = watch(&server, version(&list), &format!("allowWatchBookmarks=true&{LIVE}"));
    let mut foreign = service("web");
    foreign["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    server.apply(service("new")).unwrap();
    server.apply(service("web")).unwrap();
    server.apply(foreign).unwrap();
    server.apply(service("web")).unwrap();
    assert!(server.delete(Kind::Service, "default", "web"));
    assert!(!server.delete(Kind::Service, "default", "web"));
    server.send_bookmark();
    let mut last = version(&list).parse::<u64>().unwrap();
    for (kind, name) in
        [("ADDED", "new"), ("MODIFIED", "web"), ("DELETED", "web"), ("ADDED", "web"), ("DELETED", "web")]
    {
        let (event, object) = stream.event();
        assert_eq!((event.as_str(), object["metadata"]["name"].as_str().unwrap()), (kind, name));
        assert_eq!((object["kind"].as_str(), object["apiVersion"].as_str()), (Some("Service"), Some("v1")));
        let version = version(&object).parse().unwrap();
        assert!(version > last, "resource versions grow");
        last = version;
    }
    let (event, object) = stream.event();
    assert_eq!((event.as_str(), version(&object)), ("BOOKMARK", last.to_string().as_str()));
}

#[test]
fn a_watch_resumes_where_it_was_and_ends_after_its_timeout() {
    let server = ApiServer::on_loopback().unwrap();
    server.apply(json!([service("a"), service("b")])).unwrap();
    let list = Response::get(server.address(), SERVICES).json();
    server.apply(service("c")).unwrap();
    server.send_bookmark();
    let mut stream = watch(&server, version(&list), "timeoutSeconds=1&allowWatchBookmarks=true");
    assert_eq!(stream.event().1["metadata"]["name"], "c");
    assert!(stream.chunk().unwrap().is_none(), "the bookmark was sent before the watch began");
    let mut stream = watch(&server, "", "timeoutSeconds=60");
    for name in ["a", "b", "c"] {
        let (event, object) = stream.event();
        assert_eq!((event.as_str(), object["metadata"]["name"].as_str()), ("ADDED", Some(name)));
    }
}

#[test]
fn what_is_forgotten_is_gone() {
    let server = ApiServer::on_loopback().unwrap();
    server.apply(json!([service("a"), service("b")])).unwrap();
    let page = Response::get(server.address(), &format!("{SERVICES}?limit=1")).json();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let mut stream = watch(&server, version(&page), "");
    server.expire();
    let (event, object) = stream.event();
    assert_eq!((event.as_str(), object["code"].as_u64()), ("ERROR", Some(410)));
    assert!(stream.chunk().unwrap().is_none());
    let mut stream =
        Response::get(server.address(), &format!("{SERVICES}?watch=true&resourceVersion={}", version(&page)));
    let mut body = String::new();
    stream.reader.read_to_string(&mut body).unwrap();
    assert!(body.contains(r#""code":410"#), "{body}");
    let continued = Response::get(server.address(), &format!("{SERVICES}?limit=1&continue={token}"));
    assert_eq!(continued.code, 410);
}

#[test]
fn streams_break_as_told() {
    let server = ApiServer::on_loopback().unwrap();
    let mut clean = watch(&server, "", "");
    server.cut_streams(Cut::Clean);
    assert!(clean.chunk().unwrap().is_none());
    let mut broken = watch(&server, "", "");
    server.garbage(Kind::Node, "for others");
    server.garbage(Kind::Service, "{broken");
    server.cut_streams(Cut::Broken);
    assert_eq!(broken.chunk().unwrap().unwrap(), "{broken\n");
    assert!(broken.chunk().is_err());
    let mut half = watch(&server, "", "");
    server.cut_streams(Cut::MidLine);
    assert!(!half.chunk().unwrap().unwrap().ends_with('\n'));
    assert!(half.chunk().is_err());
}

#[test]
fn the_server_refuses_goes_away_and_comes_back() {
    let server = ApiServer::on_loopback().unwrap();
    server.apply(service("a")).unwrap();
    let mut stream = watch(&server, "", "");
    stream.event();
    server.refuse(Some(503));
    assert_eq!(Response::get(server.address(), SERVICES).code, 503);
    server.refuse(None);
    server.away();
    server.away();
    assert!(stream.chunk().is_err());
    assert!(TcpStream::connect(server.address()).is_err());
    server.back();
    assert_eq!(names(&Response::get(server.address(), SERVICES).json()), ["a"]);
    assert_eq!(Response::get(server.address(), "/api/v1/pods").code, 404);
    assert_eq!(Response::get(server.address(), &format!("{SERVICES}?fieldSelector=x%3Dy")).code, 400);
}
