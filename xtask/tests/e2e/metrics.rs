//! What Prometheus and operators are told at port 10249, by the real agent over real HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
};

use serde_json::{Value, json};
use xtask::lab::{
    TcpSession, Via, available,
    objects::{endpoint, service, slice},
};

use crate::{
    helpers::{PATIENCE, names, small, until_logged, web},
    http::{Response, get, until},
    scene::Scene,
    world::{From, SOURCES, cluster_ips, eventually, until_answered_by, until_refused},
};

const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);

/// What was exposed: the type of each metric, and the value of each series by its name with labels.
#[derive(Debug, Default)]
struct Exposition {
    types: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

impl Exposition {
    fn parse(text: &str) -> Self {
        let mut exposition = Self::default();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                let (name, kind) = line.split_once(' ').expect("a type");
                let before = exposition.types.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "twice: {name}");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                exposition.series.insert(series.to_owned(), value.parse().expect("a number"));
            }
        }
        exposition
    }

    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not among {:?}", self.series.keys()))
    }

    /// Names of the labels of a metric.
    fn labels(&self, name: &str) -> BTreeSet<String> {
        let of_series = |series: &String| {
            let (metric, rest) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
            let is_of = metric == name || base == Some(name);
            let pairs = rest.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty());
            is_of.then(|| {
                pairs.map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
            })
        };
        self.series.keys().filter_map(of_series).flatten().filter(|label| label != "le").collect()
    }
}

fn scrape(scene: &Scene) -> Exposition {
    Exposition::parse(&ask(scene, "/metrics").body)
}

fn ask(scene: &Scene, path: &str) -> Response {
    until(&scene.node(), TO, path, 200, |_| true)
}

/// An agent that has made requests of every kind, and a connection that stays, so that all metrics have a value.
fn busy(name: &str, from: From) -> (Scene, TcpSession) {
    let scene = Scene::with(name, from, 2, |spec| spec.arg("--count-connections"));
    let ips = scene.served("web");
    until_answered_by(&scene.client, Via::Tcp, (ips.0, 80).into(), "web-1");
    let session = scene.client.run(|| TcpSession::connect((ips.0, 80).into(), PATIENCE));
    (scene, session.expect("a connection"))
}

/// Of kube-proxy 1.36: name, type, labels.
const OF_KUBE_PROXY: [(&str, &str, &[&str]); 13] = [
    ("kubeproxy_sync_proxy_rules_duration_seconds", "histogram", &["ip_family"]),
    ("kubeproxy_sync_full_proxy_rules_duration_seconds", "histogram", &["ip_family"]),
    ("kubeproxy_sync_partial_proxy_rules_duration_seconds", "histogram", &["ip_family"]),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "gauge", &["ip_family"]),
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "gauge", &["ip_family"]),
    ("kubeproxy_network_programming_duration_seconds", "histogram", &["ip_family"]),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "gauge", &[]),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_total", "counter", &[]),
    ("kubeproxy_sync_proxy_rules_service_changes_pending", "gauge", &[]),
    ("kubeproxy_sync_proxy_rules_service_changes_total", "counter", &[]),
    ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "gauge", &["ip_family", "traffic_policy"]),
    ("kubeproxy_proxy_healthz_total", "counter", &["code"]),
    ("kubeproxy_proxy_livez_total", "counter", &["code"]),
];

#[test]
fn kube_proxys_metrics_have_their_names_types_and_labels() {
    if !available() {
        return;
    }
    let (scene, _session) = busy("metric-names", From::Api);
    let exposition = scrape(&scene);
    for (name, kind, labels) in OF_KUBE_PROXY {
        assert_eq!(exposition.types.get(name).map(String::as_str), Some(kind), "{name}");
        let expected: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(exposition.labels(name), expected, "{name}");
    }
    let buckets = |name: &str, labels: &str| -> Vec<f64> {
        let start = format!("{name}_bucket{{{labels}le=\"");
        let mut bounds: Vec<f64> = (exposition.series.keys())
            .filter_map(|series| series.strip_prefix(&start)?.trim_end_matches("\"}").parse().ok())
            .collect();
        bounds.sort_by(f64::total_cmp);
        assert_eq!(bounds.pop(), Some(f64::INFINITY), "{name}");
        bounds
    };
    let doubling: Vec<f64> = (0..15).map(|n| 0.001 * 2_f64.powi(n)).collect();
    let steps = |from: u32, to: u32, step: usize| (from..=to).step_by(step).map(f64::from);
    let latency: Vec<f64> = [0.25, 0.5]
        .into_iter()
        .chain(steps(1, 59, 1))
        .chain(steps(60, 115, 5))
        .chain(steps(120, 300, 30))
        .collect();
    for family in ["ip_family=\"IPv4\",", "ip_family=\"IPv6\","] {
        for kind in ["", "full_", "partial_"] {
            let name = format!("kubeproxy_sync_{kind}proxy_rules_duration_seconds");
            assert_eq!(buckets(&name, family), doubling, "{name}");
        }
        assert_eq!(buckets("kubeproxy_network_programming_duration_seconds", family), latency);
    }
    let labels: BTreeSet<_> = ["code", "method", "host"].map(str::to_owned).into();
    assert_eq!(exposition.labels("rest_client_requests_total"), labels);
}

#[test]
fn the_page_of_metrics_lists_what_there_is() {
    if !available() {
        return;
    }
    let (scene, _session) = busy("metric-page", From::Api);
    let exposed = scrape(&scene).types;
    let page = read("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut listed = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for name in cells[1].split('`').skip(1).step_by(2) {
            listed.insert(name.to_owned(), cells[2].to_owned());
        }
    }
    assert_eq!(listed.keys().collect::<Vec<_>>(), exposed.keys().collect::<Vec<_>>());
    for (name, kind) in listed.iter().filter(|(_, kind)| !kind.is_empty()) {
        assert_eq!(kind, &exposed[name], "{name}");
    }
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    if !available() {
        return;
    }
    let (scene, _session) = busy("metric-users", From::Api);
    let exposed = scrape(&scene).types;
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/ferroute.json")).expect("JSON");
    let rules: Value = serde_yaml_ng::from_str(&read("deploy/prometheus/rules.yaml")).expect("YAML");
    let mut expressions = Vec::new();
    for document in [&dashboard, &rules] {
        find_expressions(document, &mut expressions);
    }
    assert!(expressions.len() > 30, "{expressions:?}");
    for expression in expressions {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<&str> = words
            .filter(|word| {
                ["kubeproxy_", "ferroute_", "rest_client_", "process_"].iter().any(|p| word.starts_with(p))
            })
            .collect();
        assert!(!metrics.is_empty() || expression.contains("up{"), "uses no metric: {expression}");
        for metric in metrics {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
            let exists =
                exposed.contains_key(metric) || base.is_some_and(|base| exposed[base] == "histogram");
            assert!(exists, "{metric} does not exist: {expression}");
        }
    }
}

#[test]
fn they_follow_what_happens() {
    if !available() {
        return;
    }
    let scene = Scene::with("metric-values", From::Api, 2, |spec| spec.args(&["--count-connections"]));
    let before = scrape(&scene);
    let ips = scene.served("web");
    let session = scene.client.run(|| TcpStream::connect((ips.0, 80))).expect("a connection that stays");
    let after = scrape(&scene);
    let rise = |series: &str| after.value(series) - before.value(series);
    assert!(rise("ferroute_connections_total") >= 1.0);
    assert!(rise("kubeproxy_sync_proxy_rules_service_changes_total") >= 1.0);
    assert!(rise("kubeproxy_sync_proxy_rules_endpoint_changes_total") >= 2.0);
    assert!(rise("kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}") >= 1.0);
    assert!(after.value("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}") >= 1.0);
    assert!(rise("ferroute_map_entries{map=\"FRONTENDS4\"}") >= 2.0, "TCP and UDP");
    let last = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";
    assert!(rise(last) > 0.0);
    let sockets = "ferroute_service_connections{ip_family=\"IPv4\",namespace=\"default\",port_name=\"tcp\",\
                   protocol=\"TCP\",service=\"web\"}";
    assert!(after.value(sockets) >= 1.0);
    drop(session);
    for code in [200, 503] {
        let answers = format!("kubeproxy_proxy_healthz_total{{code=\"{code}\"}}");
        assert!(after.series.contains_key(&answers), "{answers}");
    }
    let healthz = (scene.node().addresses().v4, 10_256).into();
    get(&scene.client, healthz, "/healthz").expect("an answer");
    let answers = "kubeproxy_proxy_healthz_total{code=\"200\"}";
    assert!(scrape(&scene).value(answers) > after.value(answers));
    assert!(after.value("ferroute_map_capacity{map=\"FLOWS4\"}") > 0.0);
    assert!(after.series.keys().any(|series| series.starts_with("rest_client_requests_total{code=\"200\"")));

    // A slice that says when the change was that made the controller write it.
    let refused = "ferroute_rejected_total{reason=\"no_endpoint\"}";
    let ip = cluster_ips().0;
    let [timed, mut endpoints] = small("timed", ip, &[&scene.pods[0]]);
    scene.world.apply(&[timed]);
    until_refused(&scene.client, Via::Tcp, (ip, 80).into());
    assert!(scrape(&scene).value(refused) > after.value(refused));
    let trigger = jiff::Timestamp::now().to_string();
    endpoints["metadata"]["annotations"] =
        json!({"endpoints.kubernetes.io/last-change-trigger-time": trigger});
    scene.world.apply(&[endpoints]);
    until_answered_by(&scene.client, Via::Tcp, (ip, 80).into(), "web-1");
    let name = "kubeproxy_network_programming_duration_seconds";
    let measured = scrape(&scene);
    assert!(measured.value(&format!("{name}_count{{ip_family=\"IPv4\"}}")) >= 1.0);
    assert!(measured.value(&format!("{name}_sum{{ip_family=\"IPv4\"}}")) > 0.0);

    // Policy Local, and the only endpoint is elsewhere.
    let ips = cluster_ips();
    let local = service("default", "local").cluster_ip(ips.0).port("tcp", "TCP", 80, 8080).internal_local();
    let elsewhere = endpoint(Ipv4Addr::new(10, 9, 9, 9)).on("node-b");
    let endpoints = slice("default", "local", "local").port("tcp", "TCP", 8080).endpoint(elsewhere);
    scene.world.apply(&[local.build(), endpoints.build()]);
    eventually("a Service without a local endpoint", || {
        let gauge = "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"}";
        match scrape(&scene).value(gauge) {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

#[test]
fn operators_are_told_what_runs_here() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let scene = Scene::new("metric-paths", from, 1);
        scene.served("web");
        assert_eq!(ask(&scene, "/proxyMode").body, "ferroute");
        assert_eq!(ask(&scene, "/healthz").body, "ok");
        assert_eq!(ask(&scene, "/healthz?verbose").body, "[+]ping ok\nhealthz check passed\n");
        assert_eq!(ask(&scene, "/version").json()["gitVersion"], "v1.36.2");
        assert!(ask(&scene, "/statusz").body.contains("Paths: "));
        assert!(ask(&scene, "/flagz").body.contains("--node-name"));
        let configuration = &ask(&scene, "/configz").json()["kubeproxy.config.k8s.io"];
        assert_eq!(configuration["kind"], "KubeProxyConfiguration");
        assert_eq!(configuration["metricsBindAddress"], "127.0.0.1:10249");
        let checks = Exposition::parse(&ask(&scene, "/metrics/slis").body);
        let names: Vec<_> = checks.types.keys().map(String::as_str).collect();
        assert_eq!(names, ["kubernetes_healthcheck", "kubernetes_healthchecks_total"]);
        assert_eq!(get(&scene.node(), TO, "/nothing").expect("an answer").code, 404);
        let text = ask(&scene, "/metrics");
        assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    }
}

#[test]
fn row_061_proxy_mode_on_the_node_itself() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let scene = Scene::new("row-061-mode", from, 1);
        assert_eq!(ask(&scene, "/proxyMode").code, 200);
    }
}

#[test]
fn what_is_attached_and_heard_of_shows() {
    if !available() {
        return;
    }
    let scene = Scene::new("metric-state", From::Api, 1);
    scene.served("web");
    let node = scene.node();
    let open = |kind: &str| format!("ferroute_api_watch_open{{kind=\"{kind}\"}}");
    let watches = |wanted: f64| {
        eventually(&format!("{wanted} for each watch"), || {
            let exposition = scrape(&scene);
            let kinds = ["Service", "EndpointSlice", "Node"];
            let all: Vec<f64> = kinds.iter().map(|kind| exposition.value(&open(kind))).collect();
            if all == [wanted; 3] { Ok(()) } else { Err(format!("{all:?}")) }
        });
    };
    watches(1.0);
    scene.api().away();
    watches(0.0);
    scene.api().back();
    watches(1.0);

    // As many as bpftool finds on the node.
    let exposition = scrape(&scene);
    let on =
        |program: &str| exposition.value(&format!("ferroute_program_attachments{{program=\"{program}\"}}"));
    let pinned = names(&node, &node.bpffs().join("links"));
    let count =
        |program: &str| pinned.iter().filter(|name| name.split("-if").next() == Some(program)).count();
    assert_eq!((on("connect4"), on("sendmsg6")), (1.0, 1.0));
    assert!(on("uplink_ingress") >= 1.0);
    assert_eq!(on("workload_ingress"), 0.0, "no Service needs it");
    // By clsact there is no pin.
    if count("uplink_ingress") > 0 {
        for program in ["connect4", "uplink_ingress", "uplink_egress"] {
            assert_eq!(
                on(program),
                f64::from(u32::try_from(count(program)).unwrap()),
                "{program}: {pinned:?}"
            );
        }
    }
}

#[test]
fn the_address_of_the_metrics_is_waited_for_or_the_end() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("metric-taken", From::Api, 1);
    let node = scene.node();
    scene.world.take_agent("node-a").terminate().unwrap();
    let other = node.run(|| TcpListener::bind(TO)).expect("taking the port");
    // Services do not wait for it.
    scene.world.start_agent("node-a");
    until_logged(&scene.world, "node-a", 0, &["cannot serve /metrics on 127.0.0.1:10249", "trying again"]);
    scene.served("web");
    drop(other);
    ask(&scene, "/metrics");

    scene.world.take_agent("node-a").terminate().unwrap();
    let _other = node.run(|| TcpListener::bind(TO)).expect("taking the port");
    let before = scene.world.agent_spec("node-a").clone();
    scene.world.start_otherwise("node-a", |spec| spec.arg("--bind-address-hard-fail"));
    scene.world.launch_agent("node-a");
    until_logged(&scene.world, "node-a", 0, &["--metrics-bind-address"]);
    let events = scene.api().events();
    let event = events.iter().find(|event| event["reason"] == "FailedToStartMetricServer");
    let event = event.unwrap_or_else(|| panic!("no such event: {events:?}"));
    assert_eq!((&event["regarding"]["kind"], &event["type"]), (&json!("Node"), &json!("Warning")));
    drop(scene.world.take_agent("node-a"));

    scene.world.start_otherwise("node-a", |_| {
        before.args(&["--metrics-bind-address", "[::]", "--metrics-port", "9249"])
    });
    scene.world.start_agent("node-a");
    let elsewhere = (node.addresses().v4, 9249).into();
    until(&scene.client, elsewhere, "/metrics", 200, |response| {
        response.body.contains("ferroute_build_info")
    });
}

#[test]
fn clients_that_never_finish_hold_nothing_up() {
    if !available() {
        return;
    }
    let scene = Scene::new("metric-slow", From::Manifests, 2);
    let ips = scene.served("web");
    ask(&scene, "/metrics");
    // More than are taken up at the same time.
    let slow: Vec<TcpStream> = scene.node().run(|| {
        let open = |_| {
            let mut stream = TcpStream::connect(TO)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ")?;
            Ok(stream)
        };
        (0..300).map(open).collect::<io::Result<_>>().expect("connections")
    });
    scene.world.apply(&web("web", ips, &[&scene.pods[1]]));
    scene.until(ips, "web-2");
    let healthz = (scene.node().addresses().v4, 10_256).into();
    assert_eq!(get(&scene.client, healthz, "/healthz").expect("an answer").code, 200);
    drop(slow);
    ask(&scene, "/metrics");
}

fn find_expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| find_expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| find_expressions(value, found)),
        _ => {}
    }
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
