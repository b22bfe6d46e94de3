//! Session affinity ClientIP.
//!
//! A choice that is made afresh may fall on the same endpoint again. So every test has a Service with
//! [`PORTS`] ports of each protocol, which are service ports of their own with choices of their own, in two
//! families: that all twelve of a group fall as before, over four endpoints, happens once in 16 million.

mod moves;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use xtask::lab::{
    Place, Pod, Server, Via, ask, ask_within, available, mapped,
    objects::{ServiceBuilder, SliceBuilder},
};

use crate::{
    fixture::{Member, TARGET, Web, serve},
    world::{From, SOURCES, TRY, World, eventually},
};

const ENDPOINTS: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];

/// Service ports of one protocol.
const PORTS: u16 = 12;

/// A timeout that no test waits for.
const LONG: u32 = 3600;

/// A world with such a Service, and two clients on the node of two of its endpoints.
/// Servers end before their world.
struct Setup {
    _servers: Vec<Server>,
    world: World,
    web: Web,
    client: Pod,
    other: Pod,
    pods: [Pod; 4],
}

impl Setup {
    fn new(name: &str, from: From, affinity: u32) -> Self {
        let nodes: [(&str, &[&str]); 2] =
            [("node-a", &["client", "other", "web-1"]), ("node-b", &["web-2", "web-3", "web-4"])];
        let world = World::new(name, from, &nodes);
        let servers = serve(&world, &ENDPOINTS);
        let setup = Self {
            web: Web::new("web"),
            client: world.pod("client"),
            other: world.pod("other"),
            pods: ENDPOINTS.map(|name| world.pod(name)),
            world,
            _servers: servers,
        };
        setup.world.apply(&[setup.service(|service| service.affinity(affinity))]);
        setup.world.apply(&setup.slices(&setup.pods.each_ref()));
        setup.until_served(&setup.client);
        setup
    }

    fn service(&self, change: impl Fn(ServiceBuilder) -> ServiceBuilder) -> Value {
        let ports = (0..PORTS).fold(self.web.bare(), |service, n| {
            service.port(&format!("tcp-{n}"), "TCP", 1000 + n, TARGET).port(
                &format!("udp-{n}"),
                "UDP",
                1000 + n,
                TARGET,
            )
        });
        change(ports).build()
    }

    fn slices(&self, pods: &[&Pod]) -> Vec<Value> {
        let members: Vec<Member> = pods.iter().map(|pod| Member::pod(pod)).collect();
        self.slices_of(&members)
    }

    fn slices_of(&self, members: &[Member]) -> Vec<Value> {
        let ports = |slice: SliceBuilder| {
            (0..PORTS).fold(slice, |slice, n| {
                slice.port(&format!("tcp-{n}"), "TCP", TARGET).port(&format!("udp-{n}"), "UDP", TARGET)
            })
        };
        self.web.slices_with(members, ports)
    }

    /// Every service port, in groups of [`PORTS`].
    fn ports(&self) -> Vec<(Via, SocketAddr)> {
        let groups = [
            (Via::Tcp, self.web.v4),
            (Via::Tcp, self.web.v6),
            (Via::Udp, self.web.v4),
            (Via::UdpConnected, self.web.v6),
        ];
        let group =
            |(via, to): (Via, SocketAddr)| (0..PORTS).map(move |n| (via, SocketAddr::new(to.ip(), 1000 + n)));
        groups.into_iter().flat_map(group).collect()
    }

    /// One request to each of the ports; each from a new socket, and so from a new source port.
    fn asked(&self, from: &Place) -> Vec<Asked> {
        let ports = self.ports();
        from.run(|| {
            let ask = |(via, to)| {
                let begin = Instant::now();
                let answer = ask(via, to).unwrap_or_else(|failure| panic!("asking {to}: {failure}"));
                Asked { endpoint: answer.endpoint, begin, end: Instant::now() }
            };
            ports.into_iter().map(ask).collect()
        })
    }

    fn endpoints(&self, from: &Place) -> Vec<String> {
        self.asked(from).into_iter().map(|asked| asked.endpoint).collect()
    }

    /// Waits until none of these answers any more, at any port, and tells who does.
    fn until_none_of(&self, from: &Place, gone: &[&str]) -> Vec<String> {
        eventually(&format!("{gone:?} gone"), || {
            let now = self.endpoints(from);
            if now.iter().any(|endpoint| gone.contains(&endpoint.as_str())) {
                Err(format!("{now:?}"))
            } else {
                Ok(now)
            }
        })
    }

    fn until_served(&self, from: &Place) {
        for (via, to) in self.ports() {
            eventually(&format!("an answer at {to}"), || from.run(|| ask_within(via, to, TRY)).map(drop));
        }
    }

    /// A client that nobody has seen: what it is sent to shows who is served.
    fn newcomer(&self, n: usize) -> Pod {
        self.world.lab().add_pod(&self.world.node("node-a"), &format!("new-{n}")).expect("adding a pod")
    }
}

struct Asked {
    endpoint: String,
    begin: Instant,
    end: Instant,
}

/// Whether a port in every group was chosen otherwise.
fn every_group_differs(one: &[String], other: &[String]) -> bool {
    let group = usize::from(PORTS);
    one.chunks(group).zip(other.chunks(group)).all(|(one, other)| one != other)
}

#[test]
fn a_client_stays_with_one_endpoint() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let setup = Setup::new("affinity", from, LONG);
        let first = setup.endpoints(&setup.client);
        for _ in 0..15 {
            assert_eq!(setup.endpoints(&setup.client), first);
        }
        // Ports of one Service do not share it, nor do protocols.
        let groups: Vec<_> = first.chunks(usize::from(PORTS)).collect();
        for group in &groups {
            assert!(group.iter().any(|endpoint| endpoint != &group[0]), "ports share: {group:?}");
        }
        assert_ne!(groups[0], groups[2], "TCP and UDP share");
        // IPv4 through an IPv6 socket is the same client at the same service port.
        for (n, (via, to)) in setup.ports().into_iter().enumerate() {
            if let SocketAddr::V4(v4) = to {
                let answer = setup.client.run(|| ask(via, mapped(v4))).unwrap();
                assert_eq!(answer.endpoint, first[n], "{via:?} to {}", mapped(v4));
            }
        }
    }
}

#[test]
fn each_pod_is_a_client_and_the_host_is_one() {
    if !available() {
        return;
    }
    let setup = Setup::new("affinity-clients", From::Manifests, LONG);
    let host = setup.world.node("node-a");
    let places: [&Place; 3] = [&setup.client, &setup.other, &host];
    let chosen = places.map(|place| setup.endpoints(place));
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        assert!(every_group_differs(&chosen[one], &chosen[other]), "clients share: {chosen:?}");
    }
    for _ in 0..15 {
        // From another thread each time.
        assert_eq!(places.map(|place| setup.endpoints(place)), chosen);
    }
}

#[test]
fn it_ends_after_the_timeout_and_each_request_renews_it() {
    if !available() {
        return;
    }
    const TIMEOUT: Duration = Duration::from_secs(2);
    let setup = Setup::new("affinity-timeout", From::Api, 2);
    let part = TIMEOUT * 6 / 10;
    for _attempt in 0..5 {
        let first = setup.asked(&setup.client);
        thread::sleep(part);
        let second = setup.asked(&setup.client);
        thread::sleep(part);
        let third = setup.asked(&setup.client);
        let pairs = || first.iter().zip(&second).chain(second.iter().zip(&third));
        if !pairs().all(|(before, after)| after.end - before.begin < TIMEOUT) {
            // The machine was too busy for us to be back in time.
            continue;
        }
        // The third is later than the timeout after the first: only the second can have kept it.
        assert!(pairs().all(|(before, after)| before.endpoint == after.endpoint));

        thread::sleep(TIMEOUT);
        let idle = setup.endpoints(&setup.client);
        let third: Vec<_> = third.into_iter().map(|asked| asked.endpoint).collect();
        assert!(every_group_differs(&third, &idle), "nothing is balanced afresh: {idle:?}");
        return;
    }
    panic!("the machine is too busy to ask {} ports within {part:?}", setup.ports().len());
}

#[test]
fn another_timeout_holds_for_clients_that_are_known_already() {
    if !available() {
        return;
    }
    let setup = Setup::new("affinity-shorter", From::Manifests, LONG);
    let before = setup.endpoints(&setup.client);
    setup.world.apply(&[setup.service(|service| service.affinity(1))]);
    eventually("a choice afresh", || {
        thread::sleep(Duration::from_millis(1050));
        let after = setup.endpoints(&setup.client);
        if every_group_differs(&before, &after) { Ok(()) } else { Err(format!("{after:?}")) }
    });
}

#[test]
fn switched_off_it_spreads_and_switched_on_it_starts_empty() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let setup = Setup::new("affinity-switch", from, LONG);
        let before = setup.endpoints(&setup.client);

        setup.world.apply(&[setup.service(|service| service)]);
        for (via, to) in setup.ports() {
            eventually("several endpoints", || {
                let seen = setup.client.run(|| [(); 15].map(|()| ask(via, to).unwrap().endpoint));
                if seen.iter().any(|other| other != &seen[0]) { Ok(()) } else { Err(seen[0].clone()) }
            });
        }

        setup.world.apply(&[setup.service(|service| service.affinity(LONG))]);
        let after: Vec<String> = setup
            .ports()
            .into_iter()
            .map(|(via, to)| {
                eventually("one endpoint", || {
                    let seen = setup.client.run(|| [(); 15].map(|()| ask(via, to).unwrap().endpoint));
                    if seen.iter().all(|other| other == &seen[0]) {
                        Ok(seen[0].clone())
                    } else {
                        Err(format!("{seen:?}"))
                    }
                })
            })
            .collect();
        assert_eq!(setup.endpoints(&setup.client), after);
        assert!(every_group_differs(&before, &after), "{from:?}: what was before was kept: {after:?}");
    }
}

#[test]
fn it_survives_the_agent() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let mut setup = Setup::new("affinity-restart", from, LONG);
        let first = setup.endpoints(&setup.client);
        let same = |setup: &Setup| assert_eq!(setup.endpoints(&setup.client), first, "{from:?}");

        let status = setup.world.take_agent("node-a").terminate().unwrap();
        assert!(status.success(), "{status}");
        same(&setup);
        setup.world.start_agent("node-a");
        same(&setup);

        setup.world.take_agent("node-a").kill9().unwrap();
        same(&setup);
        setup.world.start_agent("node-a");
        same(&setup);
        same(&setup);
    }
}
