//! The loop, with memory instead of a data path.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

use super::*;
use crate::source::kube::Access;
use crate::{
    datapath::{Refused, RefusedReason, Report},
    links::Topology,
    observe::{self, Health},
    plan::{PlanChange, ServicePortId, ServicePortPlan},
    privileges::Privileges,
    state::{EndpointSlice, Ingest, ObjectName, Service},
};

type Plan = Arc<ServicePortPlan>;

/// What the loop has done.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Reconcile,
    Apply,
}

/// Endpoints by service port, as programmed; after them each frontend that is the node's own.
type Programmed = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

#[derive(Debug)]
struct Memory {
    steps: mpsc::UnboundedSender<Step>,
    programmed: Programmed,
    /// How often the kernel still refuses.
    refusals: usize,
}

impl Memory {
    fn set(&mut self, id: &ServicePortId, plan: Option<&Plan>, report: &mut Report) {
        if self.refusals > 0 {
            let error = io::ErrorKind::OutOfMemory.into();
            let reason = RefusedReason::Kernel { service: id.to_string(), what: "an entry".into(), error };
            report.refused.push(Refused { id: id.clone(), reason });
            return;
        }
        let mut programmed = self.programmed.lock().unwrap();
        let text = |plan: &Plan| {
            let endpoints = plan.endpoints.iter().map(|endpoint| endpoint.address.to_string());
            let own = plan.frontends.iter().filter(|frontend| frontend.local);
            endpoints.chain(own.map(|frontend| format!("at {}", frontend.address))).collect()
        };
        match plan {
            Some(plan) => drop(programmed.insert(id.to_string(), text(plan))),
            None => drop(programmed.remove(&id.to_string())),
        }
    }
}

impl Programmer for Memory {
    fn reconcile(&mut self, complete: &[(ServicePortId, Plan)]) -> Result<Report> {
        let mut report = Report::default();
        complete.iter().for_each(|(id, plan)| self.set(id, Some(plan), &mut report));
        self.steps.send(Step::Reconcile).unwrap();
        Ok(report)
    }

    fn apply(&mut self, changes: &[PlanChange]) -> Report {
        let mut report = Report::default();
        changes.iter().for_each(|change| self.set(&change.id, change.plan.as_ref(), &mut report));
        self.refusals = self.refusals.saturating_sub(1);
        self.steps.send(Step::Apply).unwrap();
        report
    }

    fn set_links(&mut self, _: &Topology) -> bool {
        true
    }
}

struct Lab {
    changes: mpsc::Sender<Change>,
    steps: UnboundedReceiver<Step>,
    programmed: Programmed,
    counters: Arc<Counters>,
    health: Arc<Health>,
    task: JoinHandle<()>,
}

impl Lab {
    fn start(refusals: usize) -> Self {
        let (changes, receiver) = mpsc::channel(64);
        let (sender, steps) = mpsc::unbounded_channel();
        let programmed = Programmed::default();
        let counters = Arc::new(Counters::default());
        let mut memory = Memory { steps: sender, programmed: Arc::clone(&programmed), refusals };
        let counted = Arc::clone(&counters);
        let health = Arc::new(Health::new(Duration::from_secs(30), true));
        let observer = Observer::of(&health);
        let task = tokio::spawn(async move {
            let links = Links::new(watch::channel(None).1, Uplinks::default());
            reconcile(&mut memory, PlannerConfig::default(), receiver, links, counted, observer)
                .await
                .unwrap();
        });
        Self { changes, steps, programmed, counters, health, task }
    }

    /// Past the barrier, with one Service that has one endpoint.
    async fn ready() -> Self {
        let mut lab = Self::start(0);
        lab.send(Change::Services(vec![service("web", "10.96.0.1")])).await;
        lab.send(Change::Slices(vec![slice("web", "10.244.0.1")])).await;
        lab.send(Change::Node(None)).await;
        assert_eq!(lab.step().await, Step::Reconcile);
        lab
    }

    async fn send(&self, change: Change) {
        self.changes.send(change).await.unwrap();
    }

    async fn step(&mut self) -> Step {
        let step = tokio::time::timeout(Duration::from_secs(120), self.steps.recv()).await;
        step.expect("a step of the loop").expect("a loop that runs")
    }

    /// Lets the loop do what it can now, and asserts that it does not program.
    async fn idle(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(self.steps.try_recv().is_err(), "nothing is to be programmed");
    }

    fn endpoints(&self, service_port: &str) -> Option<Vec<String>> {
        self.programmed.lock().unwrap().get(service_port).cloned()
    }
}

/// What this thread logs as long as it lives, at `warn` and `info`.
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    fn new() -> Self {
        struct Writer(Arc<Mutex<Vec<u8>>>);
        impl Write for Writer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let text = Arc::default();
        let writer = Arc::clone(&text);
        let subscriber = tracing_subscriber::fmt().with_writer(move || Writer(Arc::clone(&writer))).finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Lines with `part` in them.
    fn count(&self, part: &str) -> usize {
        let text = self.text.lock().unwrap();
        String::from_utf8_lossy(&text).lines().filter(|line| line.contains(part)).count()
    }
}

/// An observer that serves nowhere.
fn observed(kubeconfig: Option<PathBuf>) -> (Observer, Observation) {
    let api_server = kubeconfig.map(Access::of);
    let options = observe::Options {
        node_name: "n1".into(),
        api_server,
        healthz: None,
        metrics: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        about: observe::About {
            configuration: json!({}),
            flags: Vec::new(),
            started: jiff::Timestamp::now(),
        },
        services: None,
        counters: Arc::default(),
        bind_hard_fail: false,
        sync_period: Duration::from_secs(30),
        privileges: Privileges::Keep,
    };
    observe::start(options).unwrap()
}

fn service(name: &str, address: &str) -> Service {
    let object = json!({"metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"name": "http", "port": 80}]}});
    Ingest::new("n1").service(&serde_json::from_value(object).unwrap())
}

fn slice(service: &str, address: &str) -> EndpointSlice {
    let object = json!({"addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "namespace": "shop",
                     "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [address]}], "ports": [{"name": "http", "port": 8080}]});
    Ingest::new("n1").slice(&serde_json::from_value(object).unwrap())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_programmed_before_all_is_known() {
    let mut lab = Lab::start(0);
    lab.send(Change::Slices(vec![slice("web", "10.244.0.1")])).await;
    lab.idle().await;
    // Changes before the barrier count as well.
    lab.send(Change::Slice(slice("web", "10.244.0.2"))).await;
    lab.send(Change::Services(vec![service("web", "10.96.0.1"), service("db", "10.96.0.2")])).await;
    lab.idle().await;
    lab.send(Change::ServiceGone(ObjectName::new("shop", "db"))).await;
    lab.idle().await;
    lab.send(Change::Node(None)).await;
    assert_eq!(lab.step().await, Step::Reconcile);
    assert_eq!(lab.endpoints("shop/web:http").unwrap(), ["10.244.0.2"]);
    assert_eq!(lab.endpoints("shop/db:http"), None);
    lab.idle().await;
}

#[tokio::test]
async fn the_addresses_on_links_count_from_the_first_step_on() {
    let mut lab = Lab::start(0);
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    lab.send(Change::LocalAddresses(addresses(&["192.0.2.7"]))).await;
    let mut ports = service("web", "10.96.0.1");
    ports.ports[0].node_port = Some(30080);
    lab.send(Change::Services(vec![ports, service("plain", "10.96.0.2")])).await;
    lab.send(Change::Slices(vec![])).await;
    lab.send(Change::Node(None)).await;
    assert_eq!(lab.step().await, Step::Reconcile);
    assert_eq!(lab.endpoints("shop/web:http").unwrap(), ["at 127.0.0.1", "at 192.0.2.7"]);
    lab.send(Change::LocalAddresses(addresses(&["192.0.2.7", "192.0.2.8"]))).await;
    assert_eq!(lab.step().await, Step::Apply);
    assert_eq!(lab.endpoints("shop/web:http").unwrap(), ["at 127.0.0.1", "at 192.0.2.7", "at 192.0.2.8"]);
    lab.send(Change::LocalAddresses(addresses(&["192.0.2.8", "192.0.2.7"]))).await;
    lab.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_there_is_not_waited_for_for_ever() {
    let mut lab = Lab::start(0);
    lab.send(Change::Services(vec![service("web", "10.96.0.1")])).await;
    lab.send(Change::Slices(vec![])).await;
    lab.idle().await;
    let start = tokio::time::Instant::now();
    assert_eq!(lab.step().await, Step::Reconcile);
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(lab.endpoints("shop/web:http").unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_second_list_is_said_once() {
    let log = Log::new();
    let mut lab = Lab::start(0);
    lab.send(Change::Services(vec![])).await;
    for number in 1..20 {
        lab.send(Change::Service(service("web", &format!("10.96.0.{number}")))).await;
    }
    lab.idle().await;
    assert_eq!(log.count("waiting for that of EndpointSlices"), 1);
}

#[tokio::test]
async fn a_problem_that_comes_and_goes_is_said_once() {
    let log = Log::new();
    let mut lab = Lab::ready().await;
    lab.send(Change::Service(service("younger", "10.96.0.1"))).await;
    assert_eq!(lab.step().await, Step::Apply);
    for _ in 0..20 {
        lab.send(Change::ServiceGone(ObjectName::new("shop", "web"))).await;
        assert_eq!(lab.step().await, Step::Apply);
        lab.send(Change::Service(service("web", "10.96.0.1"))).await;
        assert_eq!(lab.step().await, Step::Apply);
    }
    assert_eq!(log.count("is not served on"), 1);
    assert!(lab.counters.problems() >= 20, "but counted each time");
}

#[tokio::test]
async fn what_is_refused_is_named_up_to_a_bound() {
    let log = Log::new();
    let mut lab = Lab::start(usize::MAX);
    let services = (1..=100).map(|number| service(&format!("s{number}"), &format!("10.96.0.{number}")));
    lab.send(Change::Services(services.collect())).await;
    lab.send(Change::Slices(vec![])).await;
    lab.send(Change::Node(None)).await;
    assert_eq!(lab.step().await, Step::Reconcile);
    lab.idle().await;
    assert_eq!(log.count("not programmed: "), 20);
    assert_eq!(log.count("80 more service ports are not programmed"), 1);
}

#[tokio::test]
async fn what_waits_is_taken_together() {
    let mut lab = Lab::ready().await;
    // The loop's task does not run before this one waits.
    for number in 2..60 {
        lab.changes.try_send(Change::Slice(slice("web", &format!("10.244.0.{number}")))).unwrap();
    }
    lab.changes.try_send(Change::Service(service("db", "10.96.0.2"))).unwrap();
    assert_eq!(lab.step().await, Step::Apply);
    assert_eq!(lab.endpoints("shop/web:http").unwrap(), ["10.244.0.59"]);
    assert_eq!(lab.endpoints("shop/db:http").unwrap().len(), 0);
    lab.idle().await;
    lab.send(Change::ServiceGone(ObjectName::new("shop", "db"))).await;
    assert_eq!(lab.step().await, Step::Apply);
    assert_eq!(lab.endpoints("shop/db:http"), None);
    assert_eq!(lab.counters.batches(), 3);
}

#[tokio::test]
async fn one_change_is_programmed_at_once() {
    let mut lab = Lab::ready().await;
    let mut fastest = Duration::MAX;
    for number in 2..20 {
        let start = Instant::now();
        lab.send(Change::Slice(slice("web", &format!("10.244.0.{number}")))).await;
        assert_eq!(lab.step().await, Step::Apply);
        fastest = fastest.min(start.elapsed());
    }
    assert!(fastest < Duration::from_millis(2), "a change waits {fastest:?} for nothing");
}

#[tokio::test]
async fn what_changes_nothing_programs_nothing() {
    let mut lab = Lab::ready().await;
    lab.send(Change::Services(vec![service("web", "10.96.0.1")])).await;
    lab.send(Change::Slice(slice("web", "10.244.0.1"))).await;
    lab.send(Change::Slice(slice("nobody", "10.244.0.9"))).await;
    lab.idle().await;
    // A list that lacks something takes it away.
    lab.send(Change::Services(vec![])).await;
    assert_eq!(lab.step().await, Step::Apply);
    assert_eq!(lab.endpoints("shop/web:http"), None);
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_refuses_is_tried_again() {
    let mut lab = Lab::start(3);
    lab.send(Change::Services(vec![service("web", "10.96.0.1")])).await;
    lab.send(Change::Slices(vec![slice("web", "10.244.0.1")])).await;
    lab.send(Change::Node(None)).await;
    assert_eq!(lab.step().await, Step::Reconcile);
    let start = tokio::time::Instant::now();
    assert_eq!(lab.step().await, Step::Apply);
    let first = start.elapsed();
    assert_eq!(lab.step().await, Step::Apply);
    assert!(start.elapsed() - first > first, "the wait grows");
    assert_eq!(lab.endpoints("shop/web:http"), None);
    // What changes meanwhile is not undone by the next try.
    lab.send(Change::Slice(slice("web", "10.244.0.2"))).await;
    assert_eq!(lab.step().await, Step::Apply);
    assert_eq!(lab.endpoints("shop/web:http"), None, "refused for the third time");
    assert_eq!(lab.step().await, Step::Apply);
    assert_eq!(lab.endpoints("shop/web:http").unwrap(), ["10.244.0.2"]);
    assert_eq!(lab.counters.sync_errors(), 4);
    lab.idle().await;
}

/// What the proxy says of itself while the kernel refuses, and after that.
#[tokio::test(start_paused = true)]
async fn what_the_kernel_refuses_is_no_sync() {
    let mut lab = Lab::start(2);
    lab.send(Change::Services(vec![service("web", "10.96.0.1")])).await;
    lab.send(Change::Slices(vec![])).await;
    lab.idle().await;
    lab.send(Change::Node(None)).await;
    assert_eq!(lab.step().await, Step::Reconcile);
    lab.idle().await;
    assert!(!lab.health.is_healthy(), "the first one was refused");
    assert_eq!(lab.step().await, Step::Apply);
    lab.idle().await;
    assert!(!lab.health.is_healthy());
    assert_eq!(lab.step().await, Step::Apply);
    lab.idle().await;
    assert!(!lab.health.is_healthy());
    assert_eq!(lab.step().await, Step::Apply);
    lab.idle().await;
    assert!(lab.health.is_healthy());
}

#[tokio::test]
async fn the_loop_ends_with_its_source() {
    let lab = Lab::ready().await;
    drop(lab.changes);
    tokio::time::timeout(Duration::from_secs(5), lab.task).await.expect("the loop ends").unwrap();
}

#[tokio::test]
async fn a_source_that_cannot_be_used_is_fatal() {
    let (steps, _receiver) = mpsc::unbounded_channel();
    let mut memory = Memory { steps, programmed: Programmed::default(), refusals: 0 };
    let missing = PathBuf::from("/nowhere/at/all");
    for source in [Source::Kube(Access::of(missing.clone())), Source::Manifests(missing)] {
        let counters = Arc::new(Counters::default());
        let config = PlannerConfig::default();
        let running = run(&mut memory, source, "n1", config, Uplinks::default(), counters, observed(None));
        let error =
            tokio::time::timeout(Duration::from_secs(5), running).await.expect("it ends").unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/at/all"), "{error:#}");
    }
}

#[tokio::test]
async fn services_from_an_api_server_are_programmed() {
    let server = xtask::api_server::ApiServer::on_loopback().unwrap();
    server.apply(json!([
        {"kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
         "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"name": "http", "port": 80}]}},
        {"kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
         "endpoints": [{"addresses": ["10.244.0.1"]}], "ports": [{"name": "http", "port": 8080}]},
    ])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    server.kubeconfig(&kubeconfig).unwrap();
    let (steps, mut receiver) = mpsc::unbounded_channel();
    let programmed = Programmed::default();
    let mut memory = Memory { steps, programmed: Arc::clone(&programmed), refusals: 0 };
    let counters = Arc::new(Counters::default());
    let config = PlannerConfig::default();
    let observed = observed(Some(kubeconfig.clone()));
    let source = Source::Kube(Access::of(kubeconfig));
    let running = run(&mut memory, source, "n1", config, Uplinks::default(), counters, observed);
    let looking = async {
        assert_eq!(receiver.recv().await, Some(Step::Reconcile));
        assert_eq!(programmed.lock().unwrap()["shop/web:http"], ["10.244.0.1"]);
        server.delete(xtask::api_server::Kind::EndpointSlice, "shop", "web-1");
        assert_eq!(receiver.recv().await, Some(Step::Apply));
        assert!(programmed.lock().unwrap()["shop/web:http"].is_empty());
    };
    tokio::select! {
        ended = running => panic!("the agent has ended: {ended:?}"),
        () = looking => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("not programmed within 10 s"),
    }
}
