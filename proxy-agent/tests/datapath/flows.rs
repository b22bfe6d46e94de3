//! The collector of flows, the list of them and their way into other maps, on maps that a test has filled.

use std::{
    fs,
    net::SocketAddr,
    ops::ControlFlow,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use proxy_agent::datapath::{Datapath, Fill, FlowView, Flows, Lifetimes, Pass, monotonic_now};
use proxy_common::{Direction, Protocol, Role, flow_filter_position4, flow_filter_position6, seen};

use crate::{
    flow_maps::{Filled4, Filled6, Maps, client4, client6},
    world::{World, id, plan},
};

/// Ages are taken from this time of the monotonic clock: further on than any lifetime, however young the machine.
fn now() -> Duration {
    monotonic_now() + Duration::from_secs(200_000)
}

/// A world in which everything is pinned and no agent runs.
fn pinned() -> Option<World> {
    let world = World::new()?;
    world.open().reconcile(&[]).unwrap();
    Some(world)
}

fn collect(world: &World, now: Duration) -> Pass {
    Flows::open(world.bpffs()).unwrap().collect(&Lifetimes::default(), now).unwrap()
}

fn list(world: &World, now: Duration) -> Vec<FlowView> {
    let mut flows = Vec::new();
    let show = |flow| {
        flows.push(flow);
        ControlFlow::Continue(())
    };
    Flows::open(world.bpffs()).unwrap().list(&Lifetimes::default(), now, show).unwrap();
    flows
}

#[test]
fn what_has_expired_goes_with_both_directions_and_all_else_stays() {
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    let (fin, rst, none) = (seen::FIN, seen::RST, 0);
    // Protocol, confirmed, what each direction has shown and its age in seconds, whether it stays.
    let cases = [
        (tcp, true, (none, 86_390), (none, 86_390), true),
        (tcp, true, (none, 86_401), (none, 86_401), false),
        (tcp, true, (none, 86_401), (none, 7), true),
        (tcp, true, (none, 7), (none, 86_401), true),
        (tcp, true, (fin, 3590), (none, 5000), true),
        (tcp, true, (none, 3601), (fin, 3601), false),
        (tcp, true, (fin, 119), (fin, 119), true),
        (tcp, true, (fin, 121), (fin, 121), false),
        (tcp, true, (none, 11), (rst, 11), false),
        (tcp, true, (rst, 9), (none, 300), true),
        (tcp, false, (none, 59), (none, 59), true),
        (tcp, false, (none, 61), (none, 61), false),
        (udp, true, (none, 119), (none, 119), true),
        (udp, true, (none, 121), (none, 121), false),
        (udp, false, (none, 31), (none, 29), true),
        (udp, false, (none, 31), (none, 31), false),
        (sctp, true, (none, 209), (none, 209), true),
        (sctp, true, (none, 211), (none, 211), false),
        (sctp, true, (fin, 11), (none, 11), false),
    ];
    let mut expired = 0;
    for (number, (protocol, confirmed, forward, reply, stays)) in (0..).zip(cases) {
        let v4 = Filled4::new(number, protocol, now).seen(forward, reply);
        let v6 = Filled6::new(number, protocol, now).seen(forward, reply);
        maps.v4(confirmed).put(&v4);
        maps.v6(confirmed).put(&v6);
        expired += if stays { 0 } else { 2 };
    }
    let pass = collect(&world, now);
    for (number, (protocol, confirmed, forward, reply, stays)) in (0..).zip(cases) {
        let case = format!("{protocol:?}, confirmed {confirmed}, {forward:?} and {reply:?}");
        let (v4, v6) = (Filled4::new(number, protocol, now), Filled6::new(number, protocol, now));
        assert_eq!(maps.v4(confirmed).has(&v4), [stays; 2], "{case}");
        assert_eq!(maps.v6(confirmed).has(&v6), [stays; 2], "{case}");
    }
    assert_eq!((pass.expired, pass.damaged), (expired, 0));
    assert_eq!(pass.v4.capacity, 524_288);
    let again = collect(&world, now);
    assert_eq!(again.expired, 0, "nothing is left to do");
}

#[test]
fn an_entry_without_its_other_half_goes_when_a_half_open_flow_would() {
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    let flow = |number, age| Filled4::new(number, Protocol::Tcp, now).seen((0, age), (0, age));
    let (old, young, whole) = (flow(1, 61), flow(2, 59), flow(3, 61));
    maps.v4(true).put_one(&old, Direction::Forward);
    maps.v4(true).put_one(&young, Direction::Reply);
    maps.v4(true).put(&whole);
    // Two flows to one endpoint: the entry at the key of its reply is the other one's.
    let (robbed, owner) = (flow(4, 61), flow(5, 61).with_reply_key_of(&flow(4, 61)));
    maps.v4(true).put(&robbed);
    maps.v4(true).put(&owner);
    collect(&world, now);
    assert_eq!(maps.v4(true).has(&old), [false, false]);
    assert_eq!(maps.v4(true).has(&young), [false, true]);
    assert_eq!(maps.v4(true).has(&whole), [true, true]);
    assert_eq!(maps.v4(true).has(&owner), [true, true], "what another flow shares stays");
    assert_eq!(maps.v4(true).has(&robbed), [false, true], "the reply entry is the other flow's");
}

#[test]
fn an_entry_that_makes_no_sense_goes() {
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    let flow = Filled4::new(1, Protocol::Udp, now);
    maps.v4(true).put(&flow);
    maps.v4(true).spoil(&flow, Direction::Forward);
    let pass = collect(&world, now);
    assert_eq!((pass.damaged, maps.v4(true).has(&flow)), (1, [false, true]));
}

#[test]
fn flows_that_come_and_go_meanwhile_keep_no_pass_from_its_end_or_its_work() {
    const OLD: u32 = 5000;
    const YOUNG: u32 = 20_000;
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    for number in 0..OLD + YOUNG {
        let age = if number < OLD { 100_000 } else { 100 };
        maps.v4(true).put(&Filled4::new(number, Protocol::Tcp, now).seen((0, age), (0, age)));
    }
    let stop = AtomicBool::new(false);
    let pass = thread::scope(|scope| {
        let busy = || {
            let maps = Maps::open(&world.bpffs().join("current-flows"));
            let flows = || (100_000..110_000).map(|number| Filled4::new(number, Protocol::Tcp, now));
            while !stop.load(Ordering::Relaxed) {
                flows().for_each(|flow| maps.v4(true).put(&flow));
                flows().for_each(|flow| maps.v4(true).remove(&flow));
            }
        };
        let worker = scope.spawn(busy);
        thread::sleep(Duration::from_millis(10));
        let start = Instant::now();
        let pass = collect(&world, now);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        pass
    });
    assert_eq!(pass.expired, OLD as usize, "all, each once");
    for number in 0..OLD + YOUNG {
        let flow = Filled4::new(number, Protocol::Tcp, now);
        assert_eq!(maps.v4(true).has(&flow), [number >= OLD; 2], "flow {number}");
    }
}

#[test]
fn a_packet_that_comes_during_a_pass_keeps_its_flow() {
    const FLOWS: u32 = 20_000;
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    let old = |number| Filled4::new(number, Protocol::Tcp, now).seen((0, 100_000), (0, 100_000));
    for number in 0..FLOWS {
        maps.v4(true).put(&old(number));
    }
    // The batch was read before; the entry is looked at again right before it would go. Each flow that is found
    // is seen again: those that were in time must all be whole afterwards.
    let refreshed = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let maps = Maps::open(&world.bpffs().join("current-flows"));
            let is_refreshed = |number: &u32| maps.v4(true).refresh(&old(*number), Direction::Forward, now);
            (0..FLOWS).rev().filter(is_refreshed).collect::<Vec<_>>()
        });
        collect(&world, now);
        worker.join().unwrap()
    });
    // Between the last look and the deletion lie microseconds: a few may be met there, not a batch of them.
    let lost = refreshed.iter().filter(|number| maps.v4(true).has(&old(**number)) != [true; 2]).count();
    assert!(!refreshed.is_empty() && lost <= 20, "{lost} of {} were deleted all the same", refreshed.len());
}

#[test]
fn a_full_map_has_room_again() {
    let Some(world) = World::new() else { return };
    let mut options = world.options();
    (options.capacities.flows, options.capacities.new_flows) = (500, 100);
    Datapath::open(&options).unwrap().reconcile(&[]).unwrap();
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    let mut fitted = 0;
    let flow = |number, age| Filled4::new(number, Protocol::Tcp, now).seen((0, age), (0, age));
    while maps.v4(true).try_put(&flow(fitted, if fitted % 2 == 0 { 100_000 } else { 10 })) {
        fitted += 1;
    }
    assert!((495..=500).contains(&fitted), "{fitted} flows fit");
    let pass = collect(&world, now);
    assert_eq!(pass.v4, Fill { entries: pass.v4.entries, capacity: 1000 });
    assert!(pass.v4.percent() >= 70, "{pass:?}");
    assert_eq!(pass.expired, fitted.div_ceil(2) as usize);
    for number in 1000..1200 {
        assert!(maps.v4(true).try_put(&flow(number, 0)), "flow {number}");
    }
    // The map of new flows is never full: the kernel lets go of the oldest.
    for number in 0..1000 {
        maps.v4(false).put(&flow(number, 70));
    }
    let pass = collect(&world, now);
    assert!(pass.new.entries <= 200 && pass.new.capacity == 400, "{pass:?}");
    assert!((0..1000).all(|number| maps.v4(false).has(&flow(number, 70)) == [false; 2]), "halves too");
}

#[test]
fn an_agent_lets_go_of_flows_by_itself() {
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    // Last seen when the machine was started, and just now.
    let old = Filled4::new(1, Protocol::Sctp, Duration::from_nanos(1));
    let young = Filled4::new(2, Protocol::Tcp, monotonic_now());
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .any(|name| name == "flows\n")
    };
    maps.v4(true).put(&old);
    maps.v4(true).put(&young);
    let agent = world.open();
    assert!(threads());
    let start = Instant::now();
    while maps.v4(true).has(&old) != [false; 2] {
        assert!(start.elapsed() < Duration::from_secs(10), "still there");
        thread::sleep(Duration::from_millis(10));
    }
    // While the agent waits for its first objects, too: and with the next pass what came since.
    maps.v4(true).put(&old);
    while maps.v4(true).has(&old) != [false; 2] {
        assert!(start.elapsed() < Duration::from_secs(20), "still there");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(maps.v4(true).has(&young), [true; 2]);
    let start = Instant::now();
    drop(agent);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn flows_move_into_maps_of_another_capacity() {
    let Some(world) = pinned() else { return };
    let old = Maps::open(&world.bpffs().join("current-flows"));
    let now = monotonic_now();
    let v4 = |number| Filled4::new(number, Protocol::Tcp, now);
    let v6 = |number| Filled6::new(number, Protocol::Udp, now);
    (0..100).for_each(|number| old.v4(true).put(&v4(number)));
    (100..110).for_each(|number| old.v4(false).put(&v4(number)));
    (0..5).for_each(|number| old.v6(true).put(&v6(number)));
    let half = v4(200);
    old.v4(true).put_one(&half, Direction::Reply);
    let expired = Filled4::new(201, Protocol::Udp, Duration::from_nanos(1));
    old.v4(true).put(&expired);

    let mut options = world.options();
    options.capacities.flows = 50_000;
    Datapath::open(&options).unwrap().reconcile(&[]).unwrap();
    let new = Maps::open(&world.bpffs().join("current-flows"));
    assert_eq!(collect(&world, now).v4.capacity, 100_000);
    assert!((0..100).all(|number| new.v4(true).has(&v4(number)) == [true; 2]));
    assert!((100..110).all(|number| new.v4(false).has(&v4(number)) == [true; 2]));
    assert!((0..5).all(|number| new.v6(true).has(&v6(number)) == [true; 2]));
    assert_eq!(new.v4(true).has(&half), [false; 2], "half a flow is none");
    assert_eq!(new.v4(true).has(&expired), [false; 2]);
    assert_eq!(
        new.v4(true).value(&v4(7), Direction::Forward),
        old.v4(true).value(&v4(7), Direction::Forward)
    );
    let flow = v4(7);
    assert!(
        new.filter(flow_filter_position4(bytemuck::cast(flow.frontend()), Role::Frontend)),
        "packets are looked up"
    );
    assert!(
        new.filter(flow_filter_position4(bytemuck::cast(flow.endpoint()), Role::Endpoint)),
        "in both directions"
    );
    assert!(
        !new.filter(flow_filter_position4(bytemuck::cast(flow.endpoint()), Role::Frontend)),
        "and no others"
    );
    assert!(new.filter(flow_filter_position6(bytemuck::cast(v6(1).frontend()), Role::Frontend)));
}

#[test]
fn what_does_not_fit_into_smaller_maps_is_left_behind_whole() {
    let Some(world) = pinned() else { return };
    let current = || Flows::open(world.bpffs()).unwrap();
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let (from, now) = (current(), monotonic_now());
    (0..1000).for_each(|number| maps.v4(true).put(&Filled4::new(number, Protocol::Tcp, now)));
    let mut options = world.options();
    options.capacities.flows = 100;
    Datapath::open(&options).unwrap().reconcile(&[]).unwrap();
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let has = |number| maps.v4(true).has(&Filled4::new(number, Protocol::Tcp, now));
    let kept = (0..1000).filter(|number| has(*number) == [true; 2]).count();
    assert!((95..=100).contains(&kept), "{kept}");
    assert!((0..1000).all(|number| matches!(has(number), [true, true] | [false, false])));

    // Once more: what is there stays as it is, also when the programs have moved it.
    let number = (0..1000).find(|number| has(*number) == [true; 2]).unwrap();
    let flow = Filled4::new(number, Protocol::Tcp, now);
    maps.v4(true).remove(&flow);
    let reopened = flow.clone().seen((seen::FIN, 0), (0, 0));
    maps.v4(false).put(&reopened);
    let carried = from.carry_over(&current(), &Lifetimes::default(), now).unwrap();
    assert_eq!(carried.copied + carried.refused, 1000 - kept, "{carried:?}");
    assert_eq!(maps.v4(true).has(&flow), [false; 2], "an older flow of the same packets");
}

#[test]
fn flows_are_listed_with_all_that_a_person_asks_for() {
    let Some(world) = World::new() else { return };
    let mut datapath = world.open();
    datapath.reconcile(&[(id("a"), std::sync::Arc::new(plan("10.96.0.1", &["10.244.0.1"])))]).unwrap();
    let service_port = datapath_service_port(&world);
    drop(datapath);
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = monotonic_now();
    let plain = Filled4::new(1, Protocol::Tcp, now).of(service_port);
    let masqueraded = Filled4::new(2, Protocol::Tcp, now).masqueraded().of(service_port);
    let closing = Filled4::new(3, Protocol::Tcp, now).seen((seen::FIN, 0), (0, 0));
    let half_open = Filled6::new(4, Protocol::Udp, now).of(service_port);
    maps.v4(true).put(&plain);
    maps.v4(true).put(&masqueraded);
    maps.v4(true).put_one(&Filled4::new(5, Protocol::Tcp, now), Direction::Reply);
    maps.v4(true).put(&closing);
    maps.v6(false).put(&half_open);

    let flows = list(&world, now + Duration::from_secs(20));
    assert_eq!(flows.len(), 5, "{flows:?}");
    let of = |client: SocketAddr| flows.iter().find(|flow| flow.client == client).unwrap();
    let expected = FlowView {
        client: client4(2),
        frontend: masqueraded.frontend_address(),
        endpoint: masqueraded.endpoint_address(),
        protocol: "TCP",
        masqueraded_as: Some(masqueraded.masquerade()),
        state: "established",
        idle_seconds: 20,
        expires_in_seconds: 86_380,
        forward_hook: "uplink-ingress",
        reply_hook: "uplink-egress",
        service_port,
    };
    assert_eq!(*of(client4(2)), expected);
    assert_eq!(of(client4(1)).masqueraded_as, None);
    assert_eq!((of(client4(3)).state, of(client4(3)).expires_in_seconds), ("closing", 3580));
    let of_half = of(client4(5));
    assert_eq!((of_half.state, of_half.expires_in_seconds), ("half-open", 40), "all that is left of it");
    assert_eq!((of_half.forward_hook, of_half.reply_hook), ("uplink-ingress", "uplink-egress"));
    let flow = of(client6(4));
    assert_eq!((flow.protocol, flow.state, flow.expires_in_seconds), ("UDP", "half-open", 10));

    let run = |arguments: &[&str]| {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_proxy-agent"));
        let agent = agent.arg("flows").args(arguments).arg("--bpffs").arg(world.bpffs()).output().unwrap();
        assert!(agent.status.success(), "{}", String::from_utf8_lossy(&agent.stderr));
        String::from_utf8(agent.stdout).unwrap()
    };
    let table = run(&[]);
    assert_eq!(table.lines().count(), 6, "{table}");
    let row = table.lines().find(|line| line.contains(&client4(2).to_string())).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!((cells[3], cells[4]), ("TCP", masqueraded.masquerade().to_string().as_str()));
    assert_eq!(cells[8..], ["uplink-ingress,uplink-egress", "default/a:http"]);
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let json: serde_json::Value =
            serde_json::from_str(&run(&[&["-o", "json"], arguments].concat())).unwrap();
        json["flows"].as_array().unwrap().clone()
    };
    assert_eq!(json(&[]).len(), 5);
    let found = json(&["--service", "default/a"]);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|flow| flow["service"] == "default/a" && flow["portName"] == "http"));
    let client = client4(2).ip().to_string();
    let found = json(&["--client", &client, "--conntrack-tcp-timeout-established", "10h"]);
    assert_eq!((found.len(), &found[0]["client"]), (1, &serde_json::json!(client4(2))));
    assert!(found[0]["expiresInSeconds"].as_u64().unwrap() <= 36_000, "{found:?}");
}

/// Key in `SERVICES` of the only service port.
fn datapath_service_port(world: &World) -> u32 {
    world.inspect().frontends[0].service_port
}

#[test]
fn bpftool_shows_flows_by_name() {
    let Some(world) = pinned() else { return };
    if Command::new("bpftool").arg("version").output().is_err() {
        eprintln!("skipped: needs bpftool");
        return;
    }
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let now = now();
    for confirmed in [true, false] {
        maps.v4(confirmed).put(&Filled4::new(1, Protocol::Tcp, now));
        // Not SCTP: bpftool reads a byte's enum as signed, and has no name for -124.
        maps.v6(confirmed).put(&Filled6::new(1, Protocol::Udp, now));
    }
    for (map, protocol) in
        [("FLOWS4", "Tcp"), ("FLOWS6", "Udp"), ("NEW_FLOWS4", "Tcp"), ("NEW_FLOWS6", "Udp")]
    {
        let pin = world.bpffs().join("current-flows").join(map);
        let dump = Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(pin).output().unwrap();
        let dump: serde_json::Value = serde_json::from_slice(&dump.stdout).unwrap();
        let entries = dump.as_array().unwrap();
        let entry = entries.iter().map(|entry| &entry["formatted"]).find(|entry| {
            let shown = |field: &str, name: &str| entry["value"][field].to_string().contains(name);
            shown("direction", "Forward")
                && shown("hook", "UplinkIngress")
                && shown("peer_hook", "UplinkEgress")
        });
        let entry = entry.unwrap_or_else(|| panic!("{map}: {dump}"));
        assert!(entry["key"]["protocol"].to_string().contains(protocol), "{map}: {entry}");
        assert!(
            entry["key"]["source_port"].is_u64() && entry["value"]["last_seen"].is_u64(),
            "{map}: {entry}"
        );
        assert!(entry["value"]["onward"].to_string().contains("Stack"), "{map}: {entry}");
    }
}

/// `cargo xtask test a_pass_over_a_full_map -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_pass_over_a_full_map() {
    let Some(world) = pinned() else { return };
    let maps = Maps::open(&world.bpffs().join("current-flows"));
    let flows = Flows::open(world.bpffs()).unwrap();
    let now = now();
    let measure = |what: &str| {
        let start = (Instant::now(), cpu_time(), memory());
        let pass = flows.collect(&Lifetimes::default(), now).unwrap();
        let (took, cpu) = (start.0.elapsed(), cpu_time() - start.1);
        println!(
            "{what}: {took:?}, {cpu:?} of CPU, {} KiB more at most, {} entries, {} flows expired",
            memory().saturating_sub(start.2),
            pass.v4.entries,
            pass.expired
        );
    };
    // An agent's thread looks for halves, as here, once a minute; its other passes over idle flows cost as much as
    // those over young ones.
    measure("empty");
    for (what, age) in [("all young", 5), ("all idle", 5000), ("all expired", 100_000)] {
        for number in 0..262_144 {
            maps.v4(true).put(&Filled4::new(number, Protocol::Tcp, now).seen((0, age), (0, age)));
        }
        measure(what);
    }
    let start = Instant::now();
    for number in 0..262_144 {
        maps.v4(true).put(&Filled4::new(number, Protocol::Tcp, monotonic_now()));
    }
    println!("filled again in {:?}", start.elapsed());
    let mut options = world.options();
    options.capacities.flows = 300_000;
    let mut datapath = Datapath::open(&options).unwrap();
    let start = Instant::now();
    datapath.reconcile(&[]).unwrap();
    println!("all moved to other maps, and looked at once more, in {:?}", start.elapsed());
}

fn cpu_time() -> Duration {
    let usage = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = usage.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// The most that the process has held, in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
