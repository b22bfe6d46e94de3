//! A lab with an agent on each node, and a source of API objects that they follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use xtask::{
    api_server::{ApiServer, Kind, Rules},
    lab::{Agent, AgentSpec, Answer, Failure, Lab, Manifests, Node, Place, Pod, Via, ask, ask_within},
};

/// How long a change may take to be in effect, with a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What the agent may ask of an API server, as it is deployed.
const ROLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes/base/rbac.yaml");

/// How long one try of many may take: what is lost before a change is in effect is not worth a wait.
pub(crate) const TRY: Duration = Duration::from_millis(250);

/// Where an agent gets its objects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Manifests,
    Api,
}

/// Both sources, for tests that hold for each.
pub(crate) const SOURCES: [From; 2] = [From::Manifests, From::Api];

enum Source {
    Manifests(Manifests),
    Api { server: ApiServer, folder: TempDir },
}

/// A cluster in a lab. Fields go in the order in which they must end.
pub(crate) struct World {
    agents: BTreeMap<String, Agent>,
    specs: BTreeMap<String, AgentSpec>,
    source: Source,
    lab: Lab,
}

impl World {
    /// Nodes with pods, an agent on each node. `name` shows up in what the lab makes.
    pub(crate) fn new(name: &str, from: From, nodes: &[(&str, &[&str])]) -> Self {
        Self::with(name, from, nodes, &[], |spec| spec)
    }

    /// The same with objects that are there before the agents start, and agents started otherwise.
    pub(crate) fn with(
        name: &str,
        from: From,
        nodes: &[(&str, &[&str])],
        objects: &[Value],
        start: impl Fn(AgentSpec) -> AgentSpec,
    ) -> Self {
        Self::in_lab(Lab::with(name, nodes).expect("making the lab"), from, nodes, objects, start)
    }

    /// The same in a lab that has these nodes and pods.
    pub(crate) fn in_lab(
        lab: Lab,
        from: From,
        nodes: &[(&str, &[&str])],
        objects: &[Value],
        start: impl Fn(AgentSpec) -> AgentSpec,
    ) -> Self {
        let first = lab.node(nodes[0].0);
        let source = match from {
            From::Manifests => Source::Manifests(Manifests::new().expect("making a folder of manifests")),
            From::Api => api_source(&first),
        };
        let mut world = Self { agents: BTreeMap::new(), specs: BTreeMap::new(), source, lab };
        for (node, _pods) in nodes {
            world.apply(&[world.node(node).object().build()]);
        }
        world.apply(objects);
        for (node, _pods) in nodes {
            let spec = start(world.spec(&world.node(node)));
            world.specs.insert((*node).to_owned(), spec);
            world.start_agent(node);
        }
        world
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn node(&self, name: &str) -> Node {
        self.lab.node(name)
    }

    pub(crate) fn pod(&self, name: &str) -> Pod {
        self.lab.pod(name)
    }

    /// The API server that the agents watch.
    pub(crate) fn api(&self) -> &ApiServer {
        match &self.source {
            Source::Api { server, .. } => server,
            Source::Manifests(_) => panic!("this world has no API server"),
        }
    }

    /// The folder that the agents follow.
    pub(crate) fn manifests(&self) -> &Manifests {
        match &self.source {
            Source::Manifests(manifests) => manifests,
            Source::Api { .. } => panic!("this world has no manifests"),
        }
    }

    /// Creates or replaces objects.
    pub(crate) fn apply(&self, objects: &[Value]) {
        for object in objects {
            match &self.source {
                Source::Manifests(manifests) => {
                    manifests
                        .write(&file_of(object), std::slice::from_ref(object))
                        .expect("writing a manifest");
                }
                Source::Api { server, .. } => server.apply(object.clone()).expect("applying an object"),
            }
        }
    }

    /// Deletes an object that is there.
    pub(crate) fn delete(&self, object: &Value) {
        match &self.source {
            Source::Manifests(manifests) => manifests.remove(&file_of(object)).expect("removing a manifest"),
            Source::Api { server, .. } => {
                let kind = match object["kind"].as_str() {
                    Some("Service") => Kind::Service,
                    Some("EndpointSlice") => Kind::EndpointSlice,
                    Some("Node") => Kind::Node,
                    other => panic!("no such kind: {other:?}"),
                };
                let [namespace, name] = ["namespace", "name"].map(|key| object["metadata"][key].as_str());
                let there = server.delete(kind, namespace.unwrap_or_default(), name.expect("a name"));
                assert!(there, "deleting what is not there: {object}");
            }
        }
    }

    pub(crate) fn agent(&self, node: &str) -> &Agent {
        self.agents.get(node).unwrap_or_else(|| panic!("no agent runs on {node}"))
    }

    /// How the agent of a node is started; runs other subcommands too.
    pub(crate) fn agent_spec(&self, node: &str) -> &AgentSpec {
        &self.specs[node]
    }

    /// Starts the agent of a node and waits until it is ready.
    pub(crate) fn start_agent(&mut self, node: &str) {
        self.launch_agent(node);
        self.agent(node).wait_ready(SOON * 3).expect("waiting for the agent");
    }

    /// How the agent of a node is started from now on.
    pub(crate) fn start_otherwise(&mut self, node: &str, change: impl FnOnce(AgentSpec) -> AgentSpec) {
        let spec = change(self.specs[node].clone());
        self.specs.insert(node.to_owned(), spec);
    }

    /// Starts the agent of a node, and does not wait for anything.
    pub(crate) fn launch_agent(&mut self, node: &str) {
        let agent = self.specs[node].start().expect("starting an agent");
        self.agents.insert(node.to_owned(), agent);
    }

    /// Takes the running agent of a node, to end it.
    pub(crate) fn take_agent(&mut self, node: &str) -> Agent {
        self.agents.remove(node).unwrap_or_else(|| panic!("no agent runs on {node}"))
    }

    fn spec(&self, node: &Node) -> AgentSpec {
        let binary = agent_binary();
        match &self.source {
            Source::Manifests(manifests) => AgentSpec::with_manifests(&binary, node, manifests.path()),
            Source::Api { folder, .. } => {
                AgentSpec::with_kubeconfig(&binary, node, &folder.path().join("kubeconfig"))
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Source::Api { server, .. } = &self.source
            && !thread::panicking()
        {
            let forbidden = server.forbidden();
            assert!(forbidden.is_empty(), "asked of the API server without being allowed to: {forbidden:?}");
        }
    }
}

fn api_source(node: &Node) -> Source {
    let address: SocketAddr = (node.addresses().v4, 6443).into();
    let server = node.run(|| ApiServer::start(TcpListener::bind(address).expect("binding the API server")));
    let server = server.expect("starting the API server");
    let folder = tempfile::tempdir().expect("making a folder for the kubeconfig");
    server.authorize(Rules::read(Path::new(ROLE)).expect("the ClusterRole that is deployed"));
    server.kubeconfig(&folder.path().join("kubeconfig")).expect("writing the kubeconfig");
    Source::Api { server, folder }
}

/// The agent under test.
pub(crate) fn agent_binary() -> PathBuf {
    let path = env::var_os("FERROUTE_AGENT");
    path.map(PathBuf::from).expect("FERROUTE_AGENT is not set: run `cargo xtask test`")
}

fn file_of(object: &Value) -> String {
    let part = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().expect("a kind");
    format!("{kind}-{}-{}.yaml", part("namespace"), part("name"))
}

/// A cluster IP that no other call gives, in both families.
pub(crate) fn cluster_ips() -> (Ipv4Addr, Ipv6Addr) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = u16::try_from(n).expect("fewer Services than that").to_be_bytes();
    (Ipv4Addr::new(10, 96, high, low), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, high.into(), low.into()))
}

/// Tries until it works, as a change needs a moment; the last failure is the test's.
pub(crate) fn eventually<T, E: fmt::Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{what}: not within {SOON:?}: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Waits until `place` gets an answer from this endpoint.
pub(crate) fn until_answered_by(place: &Place, via: Via, to: SocketAddr, endpoint: &str) {
    eventually(&format!("an answer of {endpoint} at {to}"), || {
        match place.run(|| ask_within(via, to, TRY)) {
            Ok(answer) if answer.endpoint == endpoint => Ok(()),
            Ok(answer) => Err(format!("{} answered", answer.endpoint)),
            Err(failure) => Err(failure.to_string()),
        }
    });
}

/// Waits until `place` has had an answer from each of these endpoints.
pub(crate) fn until_all_answer(place: &Place, via: Via, to: SocketAddr, endpoints: &[&str]) {
    let mut left: BTreeSet<&str> = endpoints.iter().copied().collect();
    eventually(&format!("answers of {endpoints:?} at {to}"), || {
        match place.run(|| ask_within(via, to, TRY)) {
            Ok(answer) => {
                left.remove(answer.endpoint.as_str());
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?} have not answered")) }
            }
            Err(failure) => Err(failure.to_string()),
        }
    });
}

/// Waits until `place` is refused.
pub(crate) fn until_refused(place: &Place, via: Via, to: SocketAddr) {
    until_errno(place, via, to, nix::libc::ECONNREFUSED);
}

/// Waits until `place` meets what a traffic policy without an endpoint here means: it fails as if packets
/// were dropped, but at once.
pub(crate) fn until_dropped(place: &Place, via: Via, to: SocketAddr) {
    let errno = if programs_set_errno() { nix::libc::ETIMEDOUT } else { nix::libc::ECONNREFUSED };
    until_errno(place, via, to, errno);
}

/// Waits until a request fails with this error number, at once.
fn until_errno(place: &Place, via: Via, to: SocketAddr, errno: i32) {
    eventually(&format!("error {errno} at {to}"), || {
        let begin = Instant::now();
        let outcome = place.run(|| ask_within(via, to, TRY));
        match &outcome {
            // Without an error number it is the client's own patience that ended.
            Err(failure) if failure.errno == Some(errno) && begin.elapsed() < TRY => Ok(()),
            // An unconnected datagram that was sent to an address that refuses: nobody hears of it.
            Err(failure) if via == Via::Udp && !programs_set_errno() && failure.timed_out() => Ok(()),
            _ => Err(described(&outcome)),
        }
    });
}

/// Kernels before 5.18 cannot be given an error number by a program.
pub(crate) fn programs_set_errno() -> bool {
    let name = nix::sys::utsname::uname().expect("asking the kernel for its version");
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().expect("a major version"), numbers.next().expect("a minor version")) >= (5, 18)
}

/// The endpoints that answer so many requests, each with its share.
pub(crate) fn answers(place: &Place, via: Via, to: SocketAddr, requests: u32) -> BTreeMap<String, u32> {
    place.run(|| {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            let answer = ask(via, to).unwrap_or_else(|failure| panic!("asking {to}: {failure}"));
            *counts.entry(answer.endpoint).or_default() += 1;
        }
        counts
    })
}

fn described(outcome: &Result<Answer, Failure>) -> String {
    match outcome {
        Ok(answer) => format!("{} answered", answer.endpoint),
        Err(failure) => failure.to_string(),
    }
}
