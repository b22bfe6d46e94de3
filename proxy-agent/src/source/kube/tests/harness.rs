use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Instant,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use xtask::api_server::Request;

use super::*;

/// The source, the server it follows, and what it has said.
pub(super) struct Lab {
    pub(super) server: ApiServer,
    pub(super) receiver: mpsc::Receiver<Change>,
    pub(super) counters: Arc<Counters>,
    pub(super) task: JoinHandle<Result<()>>,
    pub(super) seen: Seen,
    _dir: TempDir,
}

/// What the changes so far add up to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    services: BTreeMap<String, String>,
    slices: BTreeSet<String>,
    pub(super) node: Option<bool>,
    pub(super) lists: usize,
}

impl Seen {
    pub(super) fn services(&self) -> Vec<(&str, &str)> {
        self.services.iter().map(|(name, address)| (name.as_str(), address.as_str())).collect()
    }

    pub(super) fn slices(&self) -> Vec<&str> {
        self.slices.iter().map(String::as_str).collect()
    }

    fn take(&mut self, change: Change) {
        let text = |service: &crate::state::Service| {
            let address = service.cluster_ips.first().map(ToString::to_string);
            (service.name.name.to_string(), address.unwrap_or_default())
        };
        match change {
            Change::Services(list) => {
                self.lists += 1;
                self.services = list.iter().map(text).collect();
            }
            Change::Slices(list) => {
                self.lists += 1;
                self.slices = list.iter().map(|slice| slice.name.name.to_string()).collect();
            }
            Change::Service(service) => self.services.extend([text(&service)]),
            Change::ServiceGone(name) => drop(self.services.remove(&*name.name)),
            Change::Slice(slice) => drop(self.slices.insert(slice.name.name.to_string())),
            Change::SliceGone(name) => drop(self.slices.remove(&*name.name)),
            Change::Node(node) => self.node = Some(node.is_some()),
            Change::LocalAddresses(_) => panic!("an API server knows no links"),
        }
    }
}

impl Lab {
    pub(super) async fn start(server: ApiServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(kubeconfig(dir.path(), server.address()), Timing::default());
        let counters = Arc::clone(&options.counters);
        let (changes, receiver) = mpsc::channel(16);
        let task = tokio::spawn(follow(options, changes));
        Self { server, receiver, counters, task, seen: Seen::default(), _dir: dir }
    }

    /// One Service and its slice, listed and watched.
    pub(super) async fn with_web() -> Self {
        let server = ApiServer::on_loopback().unwrap();
        server.apply(json!([service("web", "10.96.0.1"), slice("web-1")])).unwrap();
        let mut lab = Self::start(server).await;
        lab.until("the first lists", |seen| {
            seen.services() == [("web", "10.96.0.1")]
                && seen.slices() == ["web-1"]
                && seen.node == Some(false)
        })
        .await;
        lab.watching().await;
        lab
    }

    pub(super) async fn next(&mut self) -> Change {
        let change = tokio::time::timeout(Duration::from_secs(10), self.receiver.recv()).await;
        change.expect("a change within 10 s").expect("a source that is there")
    }

    /// Takes changes in until they add up to what is expected.
    pub(super) async fn until(&mut self, what: &str, expected: impl Fn(&Seen) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !expected(&self.seen) {
            let change = tokio::time::timeout_at(deadline, self.receiver.recv()).await;
            let Ok(change) = change else { panic!("no {what} within 10 s: {:?}", self.seen) };
            self.seen.take(change.expect("a source that is there"));
        }
    }

    /// Whether nothing comes for a while.
    pub(super) async fn silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.receiver.recv()).await.is_err()
    }

    /// Waits until all three kinds are watched.
    pub(super) async fn watching(&self) {
        let started = Instant::now();
        while self.server.open_watches() < 3 {
            assert!(started.elapsed() < Duration::from_secs(10), "no three watches within 10 s");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn until_requests(&self, what: &str, expected: impl Fn(&[Request]) -> bool) {
        let started = Instant::now();
        while !expected(&self.server.requests()) {
            assert!(started.elapsed() < Duration::from_secs(10), "no {what} within 10 s");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The resource version that slices were last watched from.
    pub(super) fn slice_watch_version(&self) -> u64 {
        let requests = self.server.requests();
        let watch = requests.iter().rfind(|request| {
            request.path.ends_with("/endpointslices") && request.query.contains("watch=true")
        });
        let query = &watch.expect("a watch of slices").query;
        let version = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        version.expect("a resource version").parse().expect("a number")
    }
}

/// A server that answers each request, which it is shown with its headers, with what `respond` says; `None`
/// grants it, and then says nothing more.
pub(super) fn scripted(respond: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let respond = Arc::new(respond);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, respond) = (stream.unwrap(), Arc::clone(&respond));
            std::thread::spawn(move || {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let response = respond(&request.join("\n"));
                let granted = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let text = response.as_deref().unwrap_or(granted);
                // Fails when the test has seen enough.
                if stream.write_all(text.as_bytes()).is_ok() && response.is_none() {
                    std::thread::sleep(Duration::from_secs(3600));
                }
            });
        }
    });
    address
}

/// The text of a response.
pub(super) fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A response with a list of nothing.
pub(super) fn empty_list() -> String {
    response("200 OK", r#"{"metadata":{"resourceVersion":"5"},"items":null}"#)
}

pub(super) fn options(kubeconfig: PathBuf, timing: Timing) -> Options {
    Options { access: Access::of(kubeconfig), node_name: "n1".into(), timing, counters: Arc::default() }
}

pub(super) fn kubeconfig(dir: &Path, server: SocketAddr) -> PathBuf {
    let path = dir.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

pub(super) fn service(name: &str, cluster_ip: &str) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name},
           "spec": {"clusterIP": cluster_ip, "ports": [{"port": 80}]}})
}

pub(super) fn slice(name: &str) -> Value {
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
           "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
           "endpoints": [{"addresses": ["10.244.0.5"]}], "ports": [{"name": "", "port": 8080}]})
}

pub(super) fn node(name: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}})
}
