//! What several of the tests need: Services of pods, traffic that must not be harmed, and a look into the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use xtask::lab::{
    Load, LoadSpec, LogLine, Node, Place, Pod, Via,
    objects::{SliceBuilder, service, slice},
};

use crate::world::{SOON, World, eventually};

/// How long a single step of a request may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The cluster IPs of a Service.
pub(crate) type Ips = (Ipv4Addr, Ipv6Addr);

/// A dual-stack Service `name` at port 80, TCP and UDP, of these pods at 8080: the Service, and a slice for
/// each family.
pub(crate) fn web(name: &str, ips: Ips, pods: &[&Pod]) -> [Value; 3] {
    let ports = |slice: SliceBuilder| slice.port("tcp", "TCP", 8080).port("udp", "UDP", 8080);
    [
        service("default", name)
            .cluster_ip(ips.0)
            .cluster_ip(ips.1)
            .port("tcp", "TCP", 80, 8080)
            .port("udp", "UDP", 80, 8080)
            .build(),
        ports(slice("default", &format!("{name}-4"), name))
            .endpoints(pods.iter().map(|pod| pod.endpoint4()))
            .build(),
        ports(slice("default", &format!("{name}-6"), name))
            .endpoints(pods.iter().map(|pod| pod.endpoint6()))
            .build(),
    ]
}

/// A Service of one family and TCP port 80, of these pods at 8080, with its slice.
pub(crate) fn small(name: &str, ip: Ipv4Addr, pods: &[&Pod]) -> [Value; 2] {
    [
        service("default", name).cluster_ip(ip).port("tcp", "TCP", 80, 8080).build(),
        slice("default", name, name)
            .port("tcp", "TCP", 8080)
            .endpoints(pods.iter().map(|pod| pod.endpoint4()))
            .build(),
    ]
}

/// Requests to a Service made by [`web`], over TCP and UDP and both families, of which none may fail.
pub(crate) struct Traffic {
    loads: Vec<(&'static str, Load)>,
    hammer: Hammer,
}

impl Traffic {
    pub(crate) fn start(client: &Place, ips: Ips) -> Self {
        let kinds: [(_, _, IpAddr); 3] = [
            ("TCP over IPv4", Via::Tcp, ips.0.into()),
            ("UDP over IPv6", Via::Udp, ips.1.into()),
            ("connected UDP over IPv4", Via::UdpConnected, ips.0.into()),
        ];
        let start = |(what, via, ip)| {
            let spec = LoadSpec {
                pause: Duration::from_millis(2),
                patience: PATIENCE,
                longest: Duration::from_secs(600),
                ..LoadSpec::new(via, (ip, 80).into())
            };
            (what, Load::start(client, spec))
        };
        let loads = kinds.into_iter().map(start).collect();
        let traffic = Self { loads, hammer: Hammer::start(client, ips) };
        traffic.go_on(10);
        traffic
    }

    /// Waits until so many more requests of each kind are answered.
    pub(crate) fn go_on(&self, requests: u64) {
        let goals: Vec<_> = self.loads.iter().map(|(_, load)| load.answered() + requests).collect();
        for ((what, load), goal) in self.loads.iter().zip(goals) {
            let missing = goal.saturating_sub(load.answered());
            assert!(
                load.wait_for_more(missing, SOON * 3),
                "{what}: no {requests} answers within {:?}",
                SOON * 3
            );
        }
    }

    /// Stops it. No request has failed; these endpoints have answered.
    pub(crate) fn end_unharmed(self) -> BTreeMap<String, u64> {
        self.hammer.end_unharmed();
        let mut answered = BTreeMap::new();
        for (what, load) in self.loads {
            let report = load.stop();
            assert!(
                report.failed == 0,
                "{what}: {} of {} requests failed: {:?}",
                report.failed,
                report.sent(),
                report.failures
            );
            for (endpoint, count) in report.by_endpoint {
                *answered.entry(endpoint).or_default() += count;
            }
        }
        answered
    }
}

/// connect() as fast as it goes, without a packet: it meets what is wrong for microseconds only, such as a
/// frontend that is deleted before it is written again.
struct Hammer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Option<io::Error>)>,
}

impl Hammer {
    fn start(client: &Place, ips: Ips) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = client.spawn(move || {
            let bind = |any: &str| UdpSocket::bind(any).expect("making a UDP socket");
            let (v4, v6) = (bind("0.0.0.0:0"), bind("[::]:0"));
            let mut done = 0;
            while !until.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    let connected = v4.connect((ips.0, 80)).and_then(|()| v6.connect((ips.1, 80)));
                    if let Err(error) = connected {
                        return (done, Some(error));
                    }
                    done += 1;
                }
                // Others want the processor too.
                thread::sleep(Duration::from_micros(50));
            }
            (done, None)
        });
        Self { stop, thread }
    }

    fn end_unharmed(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (done, failure) = self.thread.join().expect("the thread that connects");
        assert!(failure.is_none(), "connect(), the {}th: {failure:?}", done + 1);
    }
}

/// Runs a subcommand of the agent on a node; it must succeed.
pub(crate) fn cli(world: &World, node: &str, arguments: &[&str]) -> String {
    let output = world.agent_spec(node).cli(arguments).expect("running the agent's binary");
    succeeded(&output)
}

/// The standard output of a command that must have succeeded.
pub(crate) fn succeeded(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out
}

/// What `proxy-agent services -o json` says.
pub(crate) fn services(world: &World, node: &str) -> Value {
    serde_json::from_str(&cli(world, node, &["services", "-o", "json"])).expect("JSON of services")
}

/// The frontends in the maps of a node.
pub(crate) fn frontends(world: &World, node: &str) -> Vec<Value> {
    let services = services(world, node);
    services["frontends"].as_array().unwrap_or_else(|| panic!("no frontends in {services}")).clone()
}

/// The endpoints in the maps of a node.
pub(crate) fn backends(world: &World, node: &str) -> Vec<Value> {
    let text = cli(world, node, &["backends", "-o", "json"]);
    let backends: Value = serde_json::from_str(&text).expect("JSON of backends");
    backends["backends"].as_array().unwrap_or_else(|| panic!("no backends in {backends}")).clone()
}

/// Whether the maps have a frontend with this address.
pub(crate) fn has_address(world: &World, node: &str, ip: impl Into<IpAddr>) -> bool {
    let ip = ip.into().to_string();
    frontends(world, node).iter().any(|frontend| frontend["address"] == *ip)
}

/// Waits until the maps have no frontend with this address.
pub(crate) fn until_gone(world: &World, node: &str, ip: impl Into<IpAddr>) {
    let ip = ip.into();
    eventually(&format!("no frontend at {ip}"), || {
        if has_address(world, node, ip) { Err("it is there") } else { Ok(()) }
    });
}

/// Waits until each frontend at `to` has exactly these pods, at port 8080, as its endpoints.
pub(crate) fn until_programmed(world: &World, node: &str, to: SocketAddr, pods: &[&Pod]) {
    let wanted: BTreeSet<String> = pods
        .iter()
        .map(|pod| {
            let [v4, v6] = pod.addresses().both();
            SocketAddr::new(if to.is_ipv4() { v4 } else { v6 }, 8080).to_string()
        })
        .collect();
    eventually(&format!("{wanted:?} behind {to}"), || {
        let all = frontends(world, node);
        let here: Vec<_> = all
            .iter()
            .filter(|frontend| frontend["address"] == *to.ip().to_string() && frontend["port"] == to.port())
            .map(endpoints)
            .collect();
        if !here.is_empty() && here.iter().all(|endpoints| *endpoints == wanted) {
            Ok(())
        } else {
            Err(format!("{here:?}"))
        }
    });
}

/// The endpoints of a frontend for clients in the cluster, as `address:port`.
pub(crate) fn endpoints(frontend: &Value) -> BTreeSet<String> {
    let list = frontend["internal"].as_array().unwrap_or_else(|| panic!("no endpoints in {frontend}"));
    list.iter()
        .map(|endpoint| {
            let ip: IpAddr = serde_json::from_value(endpoint["address"].clone()).expect("an address");
            let port: u16 = serde_json::from_value(endpoint["port"].clone()).expect("a port");
            SocketAddr::new(ip, port).to_string()
        })
        .collect()
}

/// Names in a folder that only the node sees; none when the folder is not there.
pub(crate) fn names(node: &Node, folder: &Path) -> BTreeSet<String> {
    node.run(|| {
        let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries.map(|entry| name(entry).into_string().expect("a name in UTF-8")).collect()
    })
}

/// The one folder of pins whose name begins so.
pub(crate) fn pins(node: &Node, prefix: &str) -> String {
    let all = names(node, &node.bpffs());
    let found: Vec<_> = all.iter().filter(|name| name.starts_with(prefix)).collect();
    let [one] = found[..] else { panic!("not one {prefix}* in {all:?}") };
    one.clone()
}

/// What `bpftool -j` says on a node.
pub(crate) fn bpftool<S: AsRef<OsStr> + Sync>(node: &Node, arguments: &[S]) -> Value {
    let text = succeeded(&try_bpftool(node, arguments));
    if text.trim().is_empty() {
        return Value::Null;
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("bpftool said no JSON, {error}: {text}"))
}

/// The same when it need not succeed.
pub(crate) fn try_bpftool<S: AsRef<OsStr> + Sync>(node: &Node, arguments: &[S]) -> Output {
    let run = || Command::new("bpftool").arg("-j").args(arguments).output();
    node.run(run).expect("running bpftool: `cargo xtask test` installs it")
}

/// Waits until the agent of a node has written a line after `mark` that has all of these words.
pub(crate) fn until_logged(world: &World, node: &str, mark: usize, words: &[&str]) -> LogLine {
    let has_all = |line: &LogLine| words.iter().all(|word| line.text.contains(word));
    let found = world.agent(node).wait_for_line(mark, SOON, has_all);
    found.unwrap_or_else(|error| panic!("no line with {words:?} in the agent's log: {error:#}"))
}
