//! The data path on the running kernel: maps, pins, programs and links. Needs root, and an agent with the
//! eBPF object inside (`cargo xtask build` first).
//!
//! Each test has a bpffs of its own in a private mount namespace and a child cgroup of its own; nothing is
//! attached to the root cgroup or pinned into /sys/fs/bpf.

mod cgroups;
mod flow_maps;
mod flows;
mod frontends;
mod links;
mod network;
mod world;

use std::{
    fs,
    io::Write,
    net::TcpListener,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use proxy_agent::{
    datapath::{self, Capacities, Datapath, Error, Options, Snapshot},
    plan::PlanChange,
};
use world::{World, id, plan};

fn services(snapshot: &Snapshot) -> Vec<(String, Vec<String>)> {
    snapshot
        .frontends
        .iter()
        .map(|frontend| {
            let endpoints = frontend.internal.iter().map(|endpoint| endpoint.address.to_string());
            (frontend.service.clone(), endpoints.collect())
        })
        .collect()
}

fn expect(name: &str, endpoints: &[&str]) -> (String, Vec<String>) {
    (format!("default/{name}"), endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect())
}

#[test]
fn what_is_planned_is_what_the_pins_hold() {
    let Some(world) = World::new() else { return };
    let mut datapath = world.open();
    assert!(world.links().is_empty(), "nothing is attached before the first complete state");
    let report = datapath
        .reconcile(&[
            (id("a"), Arc::new(plan("10.96.0.1", &["10.244.0.1", "10.244.0.2"]))),
            (id("v6"), Arc::new(plan("fd00::1", &["fd01::1"]))),
        ])
        .unwrap();
    assert_eq!((report.frontends_written, report.backends_added), (4, 3));
    assert!(report.refused.is_empty() && report.problems.is_empty(), "{report:?}");
    assert_eq!(world.links().len(), 8);
    for stats in datapath.program_stats() {
        println!("{stats:?}");
    }
    let snapshot = world.inspect();
    assert_eq!(services(&snapshot), [expect("a", &["10.244.0.1", "10.244.0.2"]), expect("v6", &["fd01::1"])]);
    assert_eq!(snapshot.backends.len(), 3);
    assert!(
        snapshot.backends.iter().all(|backend| backend.lists == ["cluster"] && backend.generation % 2 == 1)
    );

    let report = datapath.apply(&[
        PlanChange { id: id("a"), plan: Some(Arc::new(plan("10.96.0.1", &["10.244.0.2", "10.244.0.3"]))) },
        PlanChange { id: id("v6"), plan: None },
    ]);
    assert_eq!((report.frontends_written, report.frontends_removed), (1, 2));
    assert_eq!(services(&world.inspect()), [expect("a", &["10.244.0.2", "10.244.0.3"])]);
}

#[test]
fn a_restart_changes_only_the_difference_and_keeps_the_links() {
    let Some(world) = World::new() else { return };
    let state = [
        (id("a"), Arc::new(plan("10.96.0.1", &["10.244.0.1"]))),
        (id("b"), Arc::new(plan("10.96.0.2", &["10.244.0.2"]))),
    ];
    world.open().reconcile(&state).unwrap();
    let (before, links) = (world.inspect(), world.links());

    let mut again = world.open();
    let report = again.reconcile(&state).unwrap();
    assert_eq!((report.frontends_written, report.frontends_unchanged, report.backends_kept), (0, 4, 2));
    assert_eq!(world.inspect().backends, before.backends);
    let after = world.links();
    assert_eq!(links.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (hook, link) in &links {
        assert_eq!(link.id, after[hook].id, "{hook} is still the same link");
        assert_ne!(link.program, after[hook].program, "{hook} has the new program");
    }

    drop(again);
    let mut third = world.open();
    let report = third.reconcile(&state[1..]).unwrap();
    assert_eq!((report.frontends_written, report.frontends_removed, report.backends_removed), (0, 2, 1));
    assert_eq!(services(&world.inspect()), [expect("b", &["10.244.0.2"])]);
}

#[test]
fn other_capacities_get_other_maps_and_the_old_ones_go() {
    let Some(world) = World::new() else { return };
    let state = [(id("a"), Arc::new(plan("10.96.0.1", &["10.244.0.1"])))];
    world.open().reconcile(&state).unwrap();
    let before = world.directories();
    assert_eq!(before.iter().filter(|name| name.starts_with("maps-")).count(), 1);

    let mut options = world.options();
    options.capacities.slots = 4096;
    let mut datapath = Datapath::open(&options).unwrap();
    assert_eq!(services(&world.inspect()), [expect("a", &["10.244.0.1"])], "the old maps until the flip");
    datapath.reconcile(&state).unwrap();
    let after = world.directories();
    assert_eq!(after.iter().filter(|name| name.starts_with("maps-")).count(), 1);
    assert_ne!(before, after);
    let sockets = |names: &[String]| names.iter().find(|name| name.starts_with("sockets-")).cloned();
    assert_eq!(sockets(&before), sockets(&after), "what belongs to sockets outlives the change");
    assert_eq!(services(&world.inspect()), [expect("a", &["10.244.0.1"])]);
}

#[test]
fn what_does_not_fit_is_refused_alone() {
    let Some(world) = World::new() else { return };
    let mut options = world.options();
    options.capacities = Capacities {
        frontends: 4,
        slots: 8,
        backends4: 4,
        backends6: 4,
        affinity: 16,
        services: 8,
        ..Capacities::default()
    };
    let mut datapath = Datapath::open(&options).unwrap();
    let report = datapath
        .reconcile(&[
            (id("a"), Arc::new(plan("10.96.0.1", &["10.244.0.1", "10.244.0.2"]))),
            (id("b"), Arc::new(plan("10.96.0.2", &["10.244.0.1", "10.244.0.2"]))),
            (id("c"), Arc::new(plan("10.96.0.3", &["10.244.0.3"]))),
        ])
        .unwrap();
    assert_eq!((report.refused.len(), report.waiting), (1, 1));
    let message = report.refused[0].reason.to_string();
    assert_eq!(message, "Service default/b:http: map BACKENDS4 is full (4 entries): raise --max-backends");
    assert_eq!(world.inspect().frontends.len(), 2);
    let report = datapath.apply(&[PlanChange { id: id("a"), plan: None }]);
    assert_eq!(report.waiting, 0);
    assert_eq!(
        services(&world.inspect()),
        [expect("b", &["10.244.0.1", "10.244.0.2"]), expect("c", &["10.244.0.3"])]
    );
}

#[test]
fn a_pin_of_another_kind_is_refused_by_name() {
    let Some(world) = World::new() else { return };
    world.open().reconcile(&[]).unwrap();
    let maps = fs::canonicalize(world.bpffs().join("current")).unwrap();
    fs::remove_file(maps.join("SLOTS")).unwrap();
    fs::hard_link(maps.join("COUNTERS"), maps.join("SLOTS")).unwrap();
    let error = Datapath::open(&world.options()).err().expect("a wrong pin is refused");
    assert!(matches!(error, Error::WrongPin { .. }), "{error}");
    assert!(error.to_string().contains("SLOTS"), "{error}");
}

#[test]
fn another_cgroup_gets_the_links() {
    let Some(world) = World::new() else { return };
    world.open().reconcile(&[]).unwrap();
    let first = world.links();
    let options = Options { cgroup: Some(world.other_cgroup()), ..world.options() };
    Datapath::open(&options).unwrap().reconcile(&[]).unwrap();
    let second = world.links();
    assert_eq!(first.len(), second.len());
    assert!(first.iter().all(|(hook, link)| link.id != second[hook].id));
}

#[test]
fn counting_connections_attaches_one_more_program_and_stops_again() {
    let Some(world) = World::new() else { return };
    let options = Options { count_connections: true, ..world.options() };
    Datapath::open(&options).unwrap().reconcile(&[]).unwrap();
    assert!(world.links().contains_key("sock_release"));
    world.open().reconcile(&[]).unwrap();
    assert!(!world.links().contains_key("sock_release"));
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused() {
    let Some(world) = World::new() else { return };
    let first = world.open();
    let error = Datapath::open(&world.options()).err().expect("only one agent at a time");
    assert!(matches!(error, Error::InUse(_)), "{error}");
    drop(first);
    world.open();
}

#[test]
fn the_command_line_shows_the_pins_and_removes_them() {
    let Some(world) = World::new() else { return };
    let run = |arguments: &[&str]| {
        let agent = Command::new(env!("CARGO_BIN_EXE_proxy-agent"))
            .args(arguments)
            .arg("--bpffs")
            .arg(world.bpffs())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (agent.status.success(), text(agent.stdout), text(agent.stderr))
    };
    let (worked, _, error) = run(&["services"]);
    assert!(!worked && error.contains("nothing is pinned"), "{error}");
    let mut sticky = plan("10.96.0.1", &["10.244.0.1"]);
    sticky.affinity_seconds = Some(30);
    let state = [(id("a"), Arc::new(sticky)), (id("empty"), Arc::new(plan("10.96.0.2", &[])))];
    world.open().reconcile(&state).unwrap();

    let (_, table, _) = run(&["services"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["default/a", "http", "ClusterIP", "10.96.0.1:80/TCP", "30s", "10.244.0.1:8080"]);
    assert_eq!(lines[2][5..], ["none:", "reject"]);
    let (_, json, _) = run(&["services", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["counters"]["translated"], 0);
    assert_eq!(json["frontends"][0]["internal"][0]["address"], "10.244.0.1");
    assert_eq!(json["frontends"][0]["affinitySeconds"], 30);
    assert_eq!(json["frontends"][1]["whenEmpty"]["internal"], "reject");
    let (_, json, _) = run(&["backends", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["backends"][0]["lists"], serde_json::json!(["cluster"]));
    let (_, table, _) = run(&["backends"]);
    assert!(table.contains("10.244.0.1:8080/TCP  cluster"), "{table}");

    let (worked, output, _) = run(&["cleanup"]);
    assert!(worked && output.contains("removed link connect4"), "{output}");
    let (worked, output, _) = run(&["cleanup"]);
    assert!(worked && output.starts_with("nothing is pinned"), "{output}");
}

#[test]
fn a_connection_reaches_the_endpoint_that_is_programmed() {
    let Some(world) = World::new() else { return };
    let listeners = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    for (listener, port) in listeners.into_iter().zip(ports) {
        thread::spawn(move || {
            for stream in listener.incoming() {
                write!(stream.unwrap(), "{port}").unwrap();
            }
        });
    }
    let to = |port: u16| {
        let mut plan = plan("10.96.0.1", &["127.0.0.1"]);
        plan.endpoints[0].port = port;
        Arc::new(plan)
    };
    let mut datapath = world.open();
    datapath.reconcile(&[(id("a"), to(ports[0]))]).unwrap();
    assert_eq!(world.connect("10.96.0.1/80").unwrap(), ports[0].to_string());
    datapath.apply(&[PlanChange { id: id("a"), plan: Some(to(ports[1])) }]);
    assert_eq!(world.connect("10.96.0.1/80").unwrap(), ports[1].to_string());
    let error = world.connect("10.96.0.1/81").unwrap_err();
    assert!(error.contains("refused"), "{error}");
    drop(datapath);
    assert_eq!(world.connect("10.96.0.1/80").unwrap(), ports[1].to_string(), "without an agent");
    let Snapshot { counters, .. } = world.inspect();
    assert_eq!((counters.translated, counters.unknown_port), (3, 1));
}

#[test]
fn bpftool_shows_the_fields_by_name() {
    let Some(world) = World::new() else { return };
    if Command::new("bpftool").arg("version").output().is_err() {
        eprintln!("skipped: needs bpftool");
        return;
    }
    world.open().reconcile(&[(id("a"), Arc::new(plan("10.96.0.1", &["10.244.0.1"])))]).unwrap();
    for (map, field) in [
        ("FRONTENDS4", "\"kind\": \"ClusterIp\""),
        ("BACKENDS4", "\"address\": [10,244,0,1"),
        ("SERVICES", "\"family\": \"V4\""),
        ("COUNTERS", "\"translated\": 0"),
    ] {
        let pin = world.bpffs().join("current").join(map);
        let dump = Command::new("bpftool").args(["map", "dump", "pinned"]).arg(pin).output().unwrap();
        let dump = String::from_utf8(dump.stdout).unwrap();
        assert!(dump.contains(field), "{map}: {}", &dump[..dump.len().min(2000)]);
    }
}

#[test]
fn cleanup_leaves_nothing() {
    let Some(world) = World::new() else { return };
    assert!(matches!(datapath::inspect(world.bpffs()), Err(Error::NothingPinned(_))));
    world.open().reconcile(&[(id("a"), Arc::new(plan("10.96.0.1", &["10.244.0.1"])))]).unwrap();
    let removed = datapath::cleanup(world.bpffs()).unwrap();
    assert_eq!(removed.iter().filter(|line| line.starts_with("link ")).count(), 8);
    assert!(removed.iter().any(|line| line.contains("FRONTENDS4")));
    assert!(removed.last().unwrap().starts_with("mount "), "{removed:?}");
    assert!(!world.bpffs().exists());
    assert!(datapath::cleanup(world.bpffs()).unwrap().is_empty());
}

#[test]
fn what_others_made_is_left_alone() {
    let Some(world) = World::new() else { return };
    let bpffs = world.bpffs();
    fs::create_dir_all(bpffs).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("bpf", bpffs, "bpf", flags, c"mode=0700").unwrap();
    fs::create_dir_all(bpffs.join("links/theirs")).unwrap();
    fs::create_dir(bpffs.join("maps-theirs")).unwrap();
    let error = Datapath::open(&world.options()).err().expect("their links are not touched");
    assert!(matches!(error, Error::NotOurs(_)), "{error}");
    assert!(datapath::cleanup(bpffs).unwrap().is_empty());

    fs::remove_dir(bpffs.join("links/theirs")).unwrap();
    world.open().reconcile(&[]).unwrap();
    let removed = datapath::cleanup(bpffs).unwrap();
    assert!(removed.iter().any(|line| line == "link connect4"), "{removed:?}");
    assert!(bpffs.join("maps-theirs").is_dir());
    fs::remove_dir(bpffs.join("maps-theirs")).unwrap();
    world.open().reconcile(&[]).unwrap();
    datapath::cleanup(bpffs).unwrap();
    assert!(bpffs.is_dir(), "a mount that an agent did not make stays");
}

#[test]
fn a_quarter_million_endpoints_are_there_at_once_and_one_change_is_quick() {
    let Some(world) = World::new() else { return };
    let endpoints: Vec<String> = (0..50).map(|n| format!("10.244.{n}.7")).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let state: Vec<_> = (0..5000)
        .map(|n| {
            let address = format!("10.{}.{}.1", 96 + n / 250, n % 250);
            (id(&format!("s{n}")), Arc::new(plan(&address, &endpoints)))
        })
        .collect();
    let mut datapath = world.open();
    let report = datapath.reconcile(&state).unwrap();
    println!("250,000 endpoints in {:?}", report.duration);
    assert_eq!((report.frontends_written, report.backends_added), (10_000, 250_000));
    // Generous for an unoptimised build on a busy machine.
    assert!(report.duration < Duration::from_secs(5), "{:?}", report.duration);
    let report = datapath
        .apply(&[PlanChange { id: id("s1"), plan: Some(Arc::new(plan("10.96.1.1", &endpoints[1..]))) }]);
    println!("one change in {:?}", report.duration);
    assert_eq!((report.frontends_written, report.backends_removed), (1, 1));
    assert!(report.duration < Duration::from_millis(10), "{:?}", report.duration);

    drop(datapath);
    let start = Instant::now();
    let mut again = world.open();
    let opened = start.elapsed();
    let report = again.reconcile(&state).unwrap();
    println!("opened again in {opened:?}, reconciled in {:?}", report.duration);
    assert_eq!((report.frontends_written, report.backends_added, report.backends_kept), (1, 1, 249_999));
}
