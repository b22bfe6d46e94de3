//! Sockets whose endpoint is gone: who is to connect again is told at once, and nobody else.

use std::{
    io::ErrorKind,
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

use nix::libc::{ECONNABORTED, EDESTADDRREQ};
use xtask::lab::{Failure, Place, Pod, TcpSession, UdpSession, available, mapped, objects::EndpointBuilder};

use crate::{
    fixture::{Member, TARGET, Web, serve},
    helpers::until_programmed,
    world::{From, SOON, World, cluster_ips},
};

const PATIENCE: Duration = Duration::from_secs(3);
/// Long enough for a pass that should not have happened.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// What runs in every pod: something that is in its network namespace. The threads of the lab's own clients come and
/// go, and their sockets stay.
struct Process {
    _until_dropped: Sender<()>,
}

impl Process {
    fn of(place: &Place) -> Self {
        let (until_dropped, dropped) = channel::<()>();
        let (started, ready) = channel();
        place.spawn(move || {
            started.send(()).expect("the test waits");
            let _dropped = dropped.recv();
        });
        ready.recv().expect("the thread has started");
        Self { _until_dropped: until_dropped }
    }
}

fn connect(place: &Place, to: SocketAddr) -> UdpSession {
    place.run(|| UdpSession::connect(to, PATIENCE)).expect("connecting a UDP socket")
}

fn answered_by(session: &UdpSession, endpoint: &str) {
    match session.ask(b"still there?") {
        Ok(answer) => assert_eq!(answer.endpoint, endpoint),
        Err(failure) => panic!("{endpoint} does not answer: {failure}"),
    }
}

/// Talks until the socket is aborted. Whoever answers until then is the endpoint that it had.
fn until_aborted(what: &str, session: &UdpSession, endpoint: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        match session.ask(b"still there?") {
            Ok(answer) => assert_eq!(answer.endpoint, endpoint, "{what}"),
            Err(failure) => {
                assert!(is_abort(&failure), "{what}: {failure}");
                return;
            }
        }
        assert!(Instant::now() < deadline, "{what}: it talks to {endpoint} for ever");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A socket that was destroyed has no peer any more, which is what send() finds first; recv() and poll() hear why.
fn is_abort(failure: &Failure) -> bool {
    matches!(failure.errno, Some(ECONNABORTED | EDESTADDRREQ))
}

fn until_slices_are(world: &World, web: &Web, pods: &[&Pod]) {
    for to in web.both() {
        until_programmed(world, "node-a", to, pods);
    }
}

fn members(pods: &[&Pod], change: impl Fn(EndpointBuilder) -> EndpointBuilder + Copy) -> Vec<Member> {
    pods.iter().map(|pod| Member::pod(pod).with(change)).collect()
}

#[test]
fn a_connected_udp_socket_is_told_at_once_and_no_other() {
    if !available() {
        return;
    }
    let world = World::new("stale", From::Api, &[("node-a", &["client", "web-1", "web-2"])]);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let (client, host, web_1, web_2) =
        (world.pod("client"), world.node("node-a"), world.pod("web-1"), world.pod("web-2"));
    let _process = Process::of(&client);
    let (web, other) = (Web::new("web"), Web::new("other"));
    world.apply(&web.of(&[&web_1]));
    world.apply(&other.of(&[&web_1]));
    until_slices_are(&world, &web, &[&web_1]);
    until_slices_are(&world, &other, &[&web_1]);

    let SocketAddr::V4(v4) = web.v4 else { unreachable!() };
    let mapped: SocketAddr = mapped(SocketAddrV4::new(*v4.ip(), v4.port()));
    let stale = [
        ("IPv4 in a pod", connect(&client, web.v4)),
        ("IPv6 in a pod", connect(&client, web.v6)),
        ("IPv4 on an IPv6 socket", connect(&client, mapped)),
        ("IPv4 of the host", connect(&host, web.v4)),
        ("IPv6 of the host", connect(&host, web.v6)),
    ];
    let own = web_1.addresses();
    let kept = [
        ("direct, IPv4", connect(&client, (own.v4, TARGET).into())),
        ("direct, IPv6", connect(&client, (own.v6, TARGET).into())),
        ("direct, of the host", connect(&host, (own.v4, TARGET).into())),
        ("another Service, IPv4", connect(&client, other.v4)),
        ("another Service, IPv6", connect(&host, other.v6)),
    ];
    // One that was the Service's and has gone to the endpoint directly since; and one that never connects.
    let moved = connect(&client, web.v4);
    client.run(|| moved.socket().connect((own.v4, TARGET))).unwrap();
    // One that is connected and sends by address too: what it is sent to next is no reason to forget the first.
    let both = connect(&client, web.v4);
    let unconnected = client.run(|| UdpSession::open(web.v4, PATIENCE)).unwrap();
    assert_eq!(unconnected.ask_to(b"", web.v4).unwrap().endpoint, "web-1");

    world.apply(&web.slices(&members(&[&web_2], |endpoint| endpoint)));
    let deadline = Instant::now() + SOON;
    let error = loop {
        match both.socket().send_to(b"by address", web.v4) {
            Ok(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            Ok(_) => panic!("a connected socket that is sent to by address is forgotten"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(ECONNABORTED), "{error}");
    for (what, session) in &stale {
        until_aborted(what, session, "web-1");
    }
    thread::sleep(A_WHILE);
    for (what, session) in &kept {
        let answer = session.ask(b"").unwrap_or_else(|failure| panic!("{what}: {failure}"));
        assert_eq!(answer.endpoint, "web-1", "{what}");
    }
    answered_by(&moved, "web-1");
    assert_eq!(unconnected.ask_to(b"", web.v4).unwrap().endpoint, "web-2", "it picks again by itself");

    for (what, session) in &stale {
        let place: &Place = if what.contains("host") { &host } else { &client };
        let to = if what.contains("IPv6 socket") {
            mapped
        } else if what.contains("IPv6") {
            web.v6
        } else {
            web.v4
        };
        // Whom send() has told hears of it once more.
        let _told = session.socket().take_error();
        place.run(|| session.socket().connect(to)).unwrap_or_else(|error| panic!("{what}: {error}"));
        answered_by(session, "web-2");
    }

    world.delete(&other.service().build());
    until_aborted("of a Service that is deleted", &kept[3].1, "web-1");
    until_aborted("of a Service that is deleted, in the host", &kept[4].1, "web-1");
    answered_by(&kept[0].1, "web-1");
    answered_by(&stale[0].1, "web-2");

    world.apply(&web.slices(&[]));
    until_aborted("of a Service without endpoints", &stale[0].1, "web-2");
    answered_by(&kept[1].1, "web-1");
}

#[test]
fn an_endpoint_that_is_serving_keeps_its_sockets() {
    if !available() {
        return;
    }
    let world = World::new("serving", From::Api, &[("node-a", &["client", "web-1", "web-2"])]);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let (client, web_1, web_2) = (world.pod("client"), world.pod("web-1"), world.pod("web-2"));
    let _process = Process::of(&client);
    let web = Web::new("web");
    world.apply(&web.of(&[&web_1]));
    until_slices_are(&world, &web, &[&web_1]);
    let session = connect(&client, web.v4);
    answered_by(&session, "web-1");
    let with = |change: fn(EndpointBuilder) -> EndpointBuilder| {
        let mut both = members(&[&web_2], |endpoint| endpoint);
        both.extend(members(&[&web_1], change));
        world.apply(&web.slices(&both));
        until_slices_are(&world, &web, &[&web_2]);
    };
    type State = fn(EndpointBuilder) -> EndpointBuilder;
    let states: [(&str, State); 3] = [
        ("terminating", |endpoint| endpoint.terminating(true)),
        ("not ready, but serving", |endpoint| endpoint.conditions(false, true, false)),
        ("terminating again", |endpoint| endpoint.terminating(true)),
    ];
    for (what, state) in states {
        with(state);
        thread::sleep(Duration::from_millis(300));
        assert!(session.ask(b"").is_ok_and(|answer| answer.endpoint == "web-1"), "{what}");
    }
    with(|endpoint| endpoint.terminating(false));
    until_aborted("terminating, and serving no more", &session, "web-1");
}

#[test]
fn tcp_connections_are_closed_on_request_only() {
    if !available() {
        return;
    }
    for asked in [false, true] {
        let world =
            World::with("stale-tcp", From::Api, &[("node-a", &["client", "web-1", "web-2"])], &[], |spec| {
                if asked { spec.arg("--close-connections-of-gone-endpoints") } else { spec }
            });
        let _servers = serve(&world, &["web-1", "web-2"]);
        let (client, web_1, web_2) = (world.pod("client"), world.pod("web-1"), world.pod("web-2"));
        let _process = Process::of(&client);
        let web = Web::new("web");
        world.apply(&web.of(&[&web_1]));
        until_slices_are(&world, &web, &[&web_1]);
        let connect = |to: SocketAddr| client.run(|| TcpSession::connect(to, PATIENCE)).expect("connecting");
        let mut sessions = [connect(web.v4), connect(web.v6)];
        let mut direct = connect((web_1.addresses().v4, TARGET).into());
        let witness = self::connect(&client, web.v4);

        let mut both = members(&[&web_2], |endpoint| endpoint);
        both.extend(members(&[&web_1], |endpoint| endpoint.terminating(false)));
        world.apply(&web.slices(&both));
        until_aborted("UDP in any case", &witness, "web-1");
        thread::sleep(Duration::from_millis(300));
        for session in &mut sessions {
            assert_eq!(session.ask(b"terminating").unwrap().endpoint, "web-1", "not gone yet");
        }

        world.apply(&web.slices(&members(&[&web_2], |endpoint| endpoint)));
        let deadline = Instant::now() + if asked { SOON } else { A_WHILE };
        for session in &mut sessions {
            let failure = loop {
                match session.ask(b"gone") {
                    Ok(answer) => assert_eq!(answer.endpoint, "web-1"),
                    Err(failure) => break Some(failure),
                }
                if Instant::now() > deadline {
                    break None;
                }
                thread::sleep(Duration::from_millis(5));
            };
            match failure {
                Some(failure) => assert!(asked && failure.kind == ErrorKind::ConnectionAborted, "{failure}"),
                None => assert!(!asked, "it is still open"),
            }
        }
        assert_eq!(direct.ask(b"direct").unwrap().endpoint, "web-1");
    }
}

#[test]
fn endpoints_that_go_while_no_agent_runs_are_made_up_for() {
    if !available() {
        return;
    }
    let mut world = World::new("away", From::Api, &[("node-a", &["client", "web-1", "web-2"])]);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let (client, web_1, web_2) = (world.pod("client"), world.pod("web-1"), world.pod("web-2"));
    let _process = Process::of(&client);
    let (web, other) = (Web::new("web"), Web::new("other"));
    world.apply(&web.of(&[&web_1]));
    world.apply(&other.of(&[&web_1]));
    until_slices_are(&world, &web, &[&web_1]);
    until_slices_are(&world, &other, &[&web_1]);
    let (first, kept) = (connect(&client, web.v4), connect(&client, other.v4));
    answered_by(&first, "web-1");

    world.take_agent("node-a").kill9().unwrap();
    world.apply(&web.slices(&members(&[&web_2], |endpoint| endpoint)));
    world.start_agent("node-a");
    until_aborted("the agent of before was killed", &first, "web-1");
    answered_by(&kept, "web-1");

    // In maps of another capacity no backend has the id that it had.
    let second = connect(&client, web.v6);
    answered_by(&second, "web-2");
    world.take_agent("node-a").kill9().unwrap();
    world.apply(&web.slices(&members(&[&web_1], |endpoint| endpoint)));
    world.start_otherwise("node-a", |spec| spec.args(&["--max-backends", "5000"]));
    world.start_agent("node-a");
    until_aborted("the maps are others", &second, "web-2");
    thread::sleep(A_WHILE);
    answered_by(&kept, "web-1");
    world.apply(&other.slices(&members(&[&web_2], |endpoint| endpoint)));
    until_aborted("the maps were others when it connected", &kept, "web-1");
}

/// Sockets in so many namespaces, connected to an endpoint that then goes; how long it takes until each is told.
fn many(name: &str, namespaces: usize, sockets: usize) -> Duration {
    let names: Vec<String> = (0..namespaces).map(|number| format!("client-{number}")).collect();
    let mut pods: Vec<&str> = names.iter().map(String::as_str).collect();
    pods.extend(["web-1", "web-2"]);
    let world = World::new(name, From::Api, &[("node-a", &pods)]);
    let (web_1, web_2) = (world.pod("web-1"), world.pod("web-2"));
    let _servers = serve(&world, &["web-1", "web-2"]);
    let web = Web::at("web", cluster_ips());
    world.apply(&web.of(&[&web_1]));
    until_slices_are(&world, &web, &[&web_1]);
    let connected = |to: SocketAddr| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("making a socket");
        socket.connect(to).expect("connecting a socket");
        socket
    };
    let direct: SocketAddr = (web_1.addresses().v4, TARGET).into();
    let (mut stale, mut kept, mut processes) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let client = world.pod(name);
        processes.push(Process::of(&client));
        stale.extend(client.run(|| (0..sockets / namespaces).map(|_| connected(web.v4)).collect::<Vec<_>>()));
        kept.extend(client.run(|| (0..10).map(|_| connected(direct)).collect::<Vec<_>>()));
    }
    let aborted = |socket: &UdpSocket| {
        let error = socket.take_error().expect("asking for a socket's error");
        error.is_some_and(|error| error.raw_os_error() == Some(ECONNABORTED))
    };
    let after = web.slices(&members(&[&web_2], |endpoint| endpoint));
    let start = Instant::now();
    world.apply(&after);
    let all = stale.len();
    while !stale.is_empty() {
        assert!(start.elapsed() < SOON * 2, "{} of {all} are told nothing", stale.len());
        // The last first: it is what most of the time is spent on.
        while stale.last().is_some_and(aborted) {
            stale.pop();
        }
        thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    thread::sleep(A_WHILE);
    assert!(kept.iter().all(|socket| !aborted(socket)), "a socket of another destination was closed");
    let lines = world.agent("node-a").log().all();
    let closed = lines.iter().filter(|line| line.message() == "closed sockets whose endpoint is gone");
    let closed: Vec<_> = closed.collect();
    let udp: f64 = closed.iter().filter_map(|line| line.number("udp")).sum();
    assert!((udp - all as f64).abs() < 0.5, "{all} sockets, but the log says {udp}");
    for line in closed {
        println!("{line:?}");
    }
    took
}

#[test]
fn ten_thousand_sockets_are_all_told() {
    if !available() {
        return;
    }
    let took = many("many", 4, 10_000);
    println!("10,000 sockets in 4 namespaces: all told {took:?} after the change was sent to the API server");
}

/// A measurement: run it alone, with `cargo xtask test ten_thousand_sockets_of_a_hundred -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_sockets_of_a_hundred_pods() {
    if !available() {
        return;
    }
    let mut runs: Vec<_> = (0..5).map(|run| many(&format!("many-{run}"), 100, 10_000)).collect();
    runs.sort_unstable();
    println!(
        "10,000 sockets in 100 namespaces, from the change at the API server to the last socket: {runs:?}"
    );
}
