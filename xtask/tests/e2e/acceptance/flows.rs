//! What goes on while endpoints, agents and API servers come and go.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use xtask::lab::{
    Load, LoadSpec, Place, UdpSession, Via, ask, available,
    objects::{EndpointBuilder, ServiceBuilder, SliceBuilder},
};

use crate::{
    fixture::{Member, TARGET, Web, serve, until_served_by},
    world::{From, SOON, World, eventually, programs_set_errno, until_answered_by},
};

const TWO_NODES: &[(&str, &[&str])] = &[("node-a", &["client", "web-1", "web-2"]), ("node-b", &["web-3"])];

#[test]
fn row_008_the_agent_is_restarted() {
    if !available() {
        return;
    }
    let mut world = World::new("row-008", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let (old, new) = (Web::new("old"), Web::new("new"));
    let client = world.pod("client");
    world.apply(&old.of(&[&world.pod("web-1"), &world.pod("web-2")]));
    until_served_by(&client, &old, &["web-1", "web-2"]);
    let load = Load::start(&client, LoadSpec::new(Via::Tcp, old.v4));
    assert!(load.wait_for_more(20, SOON));
    assert!(world.take_agent("node-a").terminate().unwrap().success());
    assert!(load.wait_for_more(50, SOON), "no service without an agent");
    world.start_agent("node-a");
    until_served_by(&client, &old, &["web-1", "web-2"]);
    world.apply(&new.of(&[&world.pod("web-1")]));
    until_served_by(&client, &new, &["web-1"]);
    let report = load.stop();
    assert_eq!(report.failed, 0, "{:?}", report.failures);
}

#[test]
fn row_009_the_api_server_is_restarted() {
    if !available() {
        return;
    }
    let world = World::new("row-009", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-2"]);
    let (old, new) = (Web::new("old"), Web::new("new"));
    let client = world.pod("client");
    world.apply(&old.of(&[&world.pod("web-1")]));
    until_served_by(&client, &old, &["web-1"]);
    world.api().away();
    until_served_by(&client, &old, &["web-1"]);
    world.apply(&old.of(&[&world.pod("web-2")]));
    world.api().back();
    until_served_by(&client, &old, &["web-2"]);
    world.apply(&new.of(&[&world.pod("web-1")]));
    until_served_by(&client, &new, &["web-1"]);
}

/// UDP clients whose source port stays the same while the pod behind the Service is replaced by another.
fn udp_while_the_pod_cycles(world: &World, client: &Place, change: fn(ServiceBuilder) -> ServiceBuilder) {
    let web = Web::new(&format!("cycle-{}", client.name()));
    world.apply(&[change(web.service()).build()]);
    let apply = |pods: &[&str]| {
        let members: Vec<Member> = pods.iter().map(|pod| Member::pod(&world.pod(pod))).collect();
        world.apply(&web.slices(&members));
    };
    apply(&["web-1"]);
    for to in web.both() {
        until_answered_by(client, Via::Udp, to, "web-1");
    }
    let patience = Duration::from_secs(1);
    let kept = web.both().map(|to| client.run(|| UdpSession::open(to, patience)).unwrap());
    for (session, to) in kept.iter().zip(web.both()) {
        assert_eq!(session.ask_to(b"x", to).unwrap().endpoint, "web-1");
    }
    // Deleted before the other is there, as kubectl delete would have it; and back at once.
    let new_sockets = SourcePort::new();
    for (gone, next) in [("web-1", "web-2"), ("web-2", "web-1")] {
        apply(&[]);
        for (session, to) in kept.iter().zip(web.both()) {
            eventually(&format!("{gone} left"), || match session.ask_to(b"x", to) {
                Err(failure) => {
                    let silent = failure.timed_out() && failure.errno != Some(nix::libc::ETIMEDOUT);
                    assert!(!silent || !programs_set_errno(), "no error, but silence: {failure}");
                    Ok(())
                }
                Ok(answer) => Err(format!("{} answered", answer.endpoint)),
            });
        }
        apply(&[next]);
        for (session, to) in kept.iter().zip(web.both()) {
            eventually(&format!("{next} on the same socket"), || match session.ask_to(b"x", to) {
                Ok(answer) if answer.endpoint == next => {
                    assert_eq!(answer.remote, to);
                    Ok(())
                }
                outcome => Err(format!("{outcome:?}")),
            });
            for _ in 0..5 {
                assert_eq!(new_sockets.ask(client, to), next);
            }
        }
    }
}

/// A source port that one socket after the other binds.
struct SourcePort(u16);

impl SourcePort {
    fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(5000);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn ask(&self, client: &Place, to: SocketAddr) -> String {
        client.run(|| {
            let session = UdpSession::open_at(self.0, to, SOON).unwrap();
            session.socket().connect(to).unwrap();
            let answer = session.ask(b"hostname").unwrap();
            assert_eq!(answer.peer.port(), self.0);
            answer.endpoint
        })
    }
}

#[test]
fn row_053_054_055_udp_clients_follow_when_the_pod_is_replaced() {
    if !available() {
        return;
    }
    let world = World::new("row-053", From::Manifests, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-2"]);
    udp_while_the_pod_cycles(&world, &world.pod("client"), |service| service);
    udp_while_the_pod_cycles(&world, &world.node("node-a"), |service| service);
    udp_while_the_pod_cycles(&world, &world.pod("web-1"), ServiceBuilder::internal_local);
    udp_while_the_pod_cycles(&world, &world.pod("web-3"), |service| service);
}

#[test]
fn row_056_udp_sent_before_an_endpoint_is_ready_pins_nothing() {
    if !available() {
        return;
    }
    let world = World::new("row-056", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-1"]);
    let web = Web::new("web");
    let client = world.pod("client");
    let unready = |endpoint: EndpointBuilder| endpoint.conditions(false, false, false);
    let member = Member::pod(&world.pod("web-1"));
    // From before there is a Service, when datagrams go wherever the address leads.
    let sessions = web.both().map(|to| client.run(|| UdpSession::open(to, Duration::from_secs(1))).unwrap());
    let send = || {
        for (session, to) in sessions.iter().zip(web.both()) {
            // Whether that is an error does not matter.
            let _sent = session.socket().send_to(b"early", to);
        }
    };
    send();
    world.apply(&[web.service().build()]);
    world.apply(&web.slices(&[member.clone().with(unready)]));
    for to in web.both() {
        crate::world::until_refused(&client, Via::Udp, to);
    }
    send();
    world.apply(&web.slices(&[member]));
    for (session, to) in sessions.iter().zip(web.both()) {
        eventually("an answer on the socket that was early", || {
            // The first send may still report what became of an earlier one.
            let answer = session.ask_to(b"late", to).map_err(|failure| failure.to_string())?;
            assert_eq!((answer.endpoint.as_str(), answer.remote), ("web-1", to));
            Ok::<_, String>(())
        });
    }
}

#[test]
fn row_058_udp_flows_move_to_a_new_target_port() {
    if !available() {
        return;
    }
    let world = World::new("row-058", From::Manifests, TWO_NODES);
    let pod = world.pod("web-3");
    let _servers = [TARGET, 9090].map(|port| pod.serve(port).unwrap());
    let web = Web::new("web");
    let client = world.pod("client");
    world.apply(&web.of(&[&pod]));
    until_served_by(&client, &web, &["web-3"]);
    let sessions = web.both().map(|to| client.run(|| UdpSession::open(to, SOON)).unwrap());
    for port in [TARGET, 9090, TARGET] {
        let ports = |slice: SliceBuilder| slice.port("tcp", "TCP", port).port("udp", "UDP", port);
        world.apply(&web.slices_with(&[Member::pod(&pod)], ports));
        for (session, to) in sessions.iter().zip(web.both()) {
            eventually(&format!("an answer from port {port}"), || {
                let answer = session.ask_to(b"x", to).map_err(|failure| failure.to_string())?;
                assert_eq!(answer.remote, to);
                if answer.local.port() == port { Ok(()) } else { Err(answer.local.to_string()) }
            });
        }
    }
}

#[test]
fn row_122_no_request_fails_between_blue_and_green() {
    if !available() {
        return;
    }
    let world = World::new("row-122", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-2", "web-3"]);
    let web = Web::new("web");
    let client = world.pod("client");
    world.apply(&web.of(&[&world.pod("web-1")]));
    for to in web.both() {
        until_answered_by(&client, Via::Tcp, to, "web-1");
        until_answered_by(&client, Via::Udp, to, "web-1");
    }
    let loads = [(Via::Tcp, web.v4), (Via::Tcp, web.v6), (Via::Udp, web.v4)]
        .map(|(via, to)| Load::start(&client, LoadSpec::new(via, to)));
    let unready = |endpoint: EndpointBuilder| endpoint.conditions(false, true, false);
    let leaving = |endpoint: EndpointBuilder| endpoint.terminating(true);
    let apply = |members: &[Member]| {
        world.apply(&web.slices(members));
        for load in &loads {
            assert!(load.wait_for_more(10, SOON));
        }
    };
    for _round in 0..3 {
        for (blue, green) in [("web-1", "web-3"), ("web-3", "web-1")] {
            let [blue, green] = [blue, green].map(|name| Member::pod(&world.pod(name)));
            // Green waits for its readiness gate; blue goes once green has got through it.
            apply(&[blue.clone(), green.clone().with(unready)]);
            apply(&[blue.clone(), green.clone()]);
            apply(&[blue.clone().with(leaving), green.clone()]);
            apply(&[green]);
        }
    }
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failed, 0, "{:?}", report.failures);
        assert!(!report.by_endpoint.contains_key("web-2"), "{:?}", report.by_endpoint);
        assert_eq!(report.by_endpoint.len(), 2, "{:?}", report.by_endpoint);
    }
}

#[test]
fn row_122_to_and_from_a_terminating_pod() {
    if !available() {
        return;
    }
    let world = World::new("row-122b", From::Manifests, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-3"]);
    let web = Web::new("web");
    let leaving = |endpoint: EndpointBuilder| endpoint.terminating(true);
    let [one, other] = ["web-1", "web-3"].map(|name| world.pod(name));
    world.apply(&[web.service().build()]);
    world.apply(&web.slices(&[Member::pod(&one).with(leaving), Member::pod(&other)]));
    // The terminating pod still is a client like any other, and reached at its own address.
    until_served_by(&one, &web, &["web-3"]);
    for ip in one.addresses().both() {
        let answer = world.pod("client").run(|| ask(Via::Tcp, (ip, TARGET).into())).unwrap();
        assert_eq!(answer.endpoint, "web-1");
    }
}
