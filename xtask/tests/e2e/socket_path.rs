//! Every way a program can reach a cluster IP, and what it sees of it.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use xtask::lab::{
    Pod, Step, TcpSession, UdpSession, Via, ask, available, mapped,
    objects::{service, slice},
};

use crate::{
    fixture::web,
    world::{
        From, SOURCES, World, answers, cluster_ips, eventually, until_all_answer, until_answered_by,
        until_refused,
    },
};

const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn every_kind_of_socket_reaches_an_endpoint_and_sees_the_service() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("sockets", from, &[("node-a", &["client"]), ("node-b", &["web-1"])]);
        let (v4, v6) = cluster_ips();
        let endpoint = world.pod("web-1");
        let _server = endpoint.serve(8080).unwrap();
        world.apply(&web("web", (v4, v6), &[&endpoint]));
        let destinations: [SocketAddr; 3] =
            [(v4, 80).into(), (v6, 80).into(), mapped(SocketAddrV4::new(v4, 80))];
        let clients = [world.pod("client"), world.pod("web-1")];
        for client in &clients {
            for to in destinations {
                for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
                    if client.name() == "web-1" {
                        // Its node has an agent of its own, which may be a moment behind the other.
                        until_answered_by(client, via, to, "web-1");
                    }
                    until_answered_by(client, via, to, "web-1");
                    let answer = client.run(|| ask(via, to)).unwrap();
                    assert_eq!(answer.remote, to, "{via:?} shows another peer than it asked for");
                    assert_eq!(answer.echo, b"who are you?");
                    // No address is translated on the way: the server sees the pod itself.
                    let own = client.addresses();
                    let expected: IpAddr = if to.is_ipv6() && to.ip() == IpAddr::from(v6) {
                        own.v6.into()
                    } else {
                        own.v4.into()
                    };
                    assert_eq!(canonical(answer.peer.ip()), expected, "{via:?} to {to}");
                }
            }
        }
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[test]
fn processes_of_the_host_are_served_too() {
    if !available() {
        return;
    }
    let world = World::new("host", From::Manifests, &[("node-a", &["web-1"])]);
    let (v4, v6) = cluster_ips();
    let endpoint = world.pod("web-1");
    let _server = endpoint.serve(8080).unwrap();
    world.apply(&web("web", (v4, v6), &[&endpoint]));
    for to in [(v4, 80).into(), (v6, 80).into()] {
        for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
            until_answered_by(&world.node("node-a"), via, to, "web-1");
        }
    }
}

#[test]
fn multipath_tcp_sockets_are_served() {
    if !available() {
        return;
    }
    let world = World::new("mptcp", From::Manifests, &[("node-a", &["client", "web-1"])]);
    let (v4, v6) = cluster_ips();
    let endpoint = world.pod("web-1");
    let _server = endpoint.serve(8080).unwrap();
    world.apply(&web("web", (v4, v6), &[&endpoint]));
    let client = world.pod("client");
    until_answered_by(&client, Via::Tcp, (v4, 80).into(), "web-1");
    let to = SocketAddr::from((v4, 80));
    match client.run(|| ask(Via::Mptcp, to)) {
        // The programs see the subflow's socket and getpeername() asks the one above it, which shows the endpoint.
        Ok(answer) => assert_eq!(answer.endpoint, "web-1"),
        // Kernels before 5.6, or built or configured without.
        Err(failure) => assert_eq!(failure.step, Step::Open, "{failure}"),
    }
}

#[test]
fn requests_spread_evenly_over_the_endpoints() {
    if !available() {
        return;
    }
    let names = ["web-1", "web-2", "web-3", "web-4"];
    let world = World::new("spread", From::Api, &[("node-a", &["client"]), ("node-b", &names)]);
    let (v4, v6) = cluster_ips();
    let pods = names.map(|name| world.pod(name));
    let _servers = pods.each_ref().map(|pod| pod.serve(8080).unwrap());
    world.apply(&web("web", (v4, v6), &pods.each_ref()));
    let client = world.pod("client");
    for (via, to) in
        [(Via::Tcp, (v4, 80).into()), (Via::Udp, (v6, 80).into()), (Via::UdpConnected, (v4, 80).into())]
    {
        until_all_answer(&client, via, to, &names);
        let seen = answers(&client, via, to, 1_000);
        // Chi squared with three degrees of freedom: above 27.9 once in 250,000 runs.
        let chi: f64 = seen.values().map(|&n| (f64::from(n) - 250.0).powi(2) / 250.0).sum();
        assert!(seen.len() == 4 && chi < 27.9, "{via:?}: {seen:?}, chi squared {chi}");
    }
}

#[test]
fn no_endpoints_is_a_refusal_at_once() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("empty", from, &[("node-a", &["client"])]);
        let (v4, v6) = cluster_ips();
        world.apply(&web("web", (v4, v6), &[]));
        for place in [&*world.pod("client"), &*world.node("node-a")] {
            for to in [(v4, 80).into(), (v6, 80).into(), mapped(SocketAddrV4::new(v4, 80))] {
                for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
                    until_refused(place, via, to);
                    let start = Instant::now();
                    let failure = place.run(|| ask(via, to)).unwrap_err();
                    assert_eq!(failure.errno, Some(nix::libc::ECONNREFUSED), "{failure}");
                    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
                }
            }
        }
    }
}

#[test]
fn a_port_that_the_service_does_not_have_is_refused() {
    if !available() {
        return;
    }
    let world = World::new("unknown-port", From::Api, &[("node-a", &["client", "web-1"])]);
    let (v4, v6) = cluster_ips();
    let endpoint = world.pod("web-1");
    let _server = endpoint.serve(8080).unwrap();
    let objects = web("web", (v4, v6), &[&endpoint]);
    world.apply(&objects);
    let client = world.pod("client");
    for ip in [IpAddr::from(v4), v6.into()] {
        until_answered_by(&client, Via::Tcp, (ip, 80).into(), "web-1");
        for via in [Via::Tcp, Via::UdpConnected] {
            let failure = client.run(|| ask(via, (ip, 81).into())).unwrap_err();
            assert!(failure.refused(), "{failure}");
        }
    }
    // With the Service gone the address is nobody's: whatever happens to it, we do not refuse it.
    world.delete(&objects[0]);
    eventually("the address left alone", || {
        let socket = client.run(|| UdpSession::connect((v4, 81).into(), PATIENCE));
        socket.map(drop).map_err(|failure| failure.to_string())
    });
}

#[test]
fn what_is_no_service_passes_untouched() {
    if !available() {
        return;
    }
    let world = World::new("untouched", From::Manifests, &[("node-a", &["client", "web-1"])]);
    let (v4, v6) = cluster_ips();
    let endpoint = world.pod("web-1");
    let _server = endpoint.serve(8080).unwrap();
    world.apply(&web("web", (v4, v6), &[&endpoint]));
    let client = world.pod("client");
    until_answered_by(&client, Via::Tcp, (v4, 80).into(), "web-1");
    for ip in endpoint.addresses().both() {
        for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
            let to = SocketAddr::from((ip, 8080));
            let answer = client.run(|| ask(via, to)).unwrap();
            assert_eq!((answer.endpoint.as_str(), answer.remote), ("web-1", to));
        }
    }
}

#[test]
fn a_socket_that_goes_on_to_the_endpoint_itself_sees_the_endpoint() {
    if !available() {
        return;
    }
    let world = World::new("reconnect", From::Manifests, &[("node-a", &["client", "web-1"])]);
    let (v4, v6) = cluster_ips();
    let endpoint = world.pod("web-1");
    let _server = endpoint.serve(8080).unwrap();
    world.apply(&web("web", (v4, v6), &[&endpoint]));
    let client = world.pod("client");
    until_answered_by(&client, Via::Tcp, (v4, 80).into(), "web-1");
    let pod = SocketAddr::from((endpoint.addresses().v4, 8080));
    let service = SocketAddr::from((v4, 80));
    client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for to in [service, pod, service] {
            socket.connect(to).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), to);
        }
    });
}

#[test]
fn an_unconnected_socket_stays_with_its_endpoint_until_that_is_gone() {
    if !available() {
        return;
    }
    let names = ["web-1", "web-2", "web-3", "web-4"];
    let world = World::new("sticky", From::Api, &[("node-a", &["client"]), ("node-b", &names)]);
    let (v4, v6) = cluster_ips();
    let pods = names.map(|name| world.pod(name));
    let _servers = pods.each_ref().map(|pod| pod.serve(8080).unwrap());
    world.apply(&web("web", (v4, v6), &pods.each_ref()));
    let client = world.pod("client");
    let to = SocketAddr::from((v4, 80));
    until_all_answer(&client, Via::Udp, to, &names);
    let session = client.run(|| UdpSession::open(to, PATIENCE)).unwrap();
    let mut left: Vec<&Pod> = pods.iter().collect();
    while left.len() > 1 {
        let first = session.ask_to(b"x", to).unwrap();
        for _ in 0..20 {
            assert_eq!(session.ask_to(b"x", to).unwrap().endpoint, first.endpoint);
        }
        left.retain(|pod| pod.name() != first.endpoint);
        world.apply(&web("web", (v4, v6), &left));
        eventually("another endpoint", || {
            let answer = session.ask_to(b"x", to).map_err(|failure| failure.to_string())?;
            assert_eq!(answer.remote, to);
            if answer.endpoint == first.endpoint { Err(answer.endpoint) } else { Ok(()) }
        });
    }
    world.apply(&web("web", (v4, v6), &[]));
    eventually("a refusal", || match session.ask_to(b"x", to) {
        Err(failure) if failure.refused() => Ok(()),
        outcome => Err(format!("{outcome:?}")),
    });
}

#[test]
fn one_unconnected_socket_talks_to_nine_services_at_once() {
    if !available() {
        return;
    }
    let names = ["web-1", "web-2", "web-3"];
    let world = World::new("many-frontends", From::Manifests, &[("node-a", &["client"]), ("node-b", &names)]);
    let pods = names.map(|name| world.pod(name));
    let mut servers = Vec::new();
    let mut services = BTreeMap::new();
    for n in 0..9_u16 {
        // A port of its own for each Service: replies of one endpoint could not be told apart otherwise.
        for pod in &pods {
            servers.push(pod.serve(8000 + n).unwrap());
        }
        let (v4, _v6) = cluster_ips();
        let name = format!("web-{n}");
        world.apply(&[
            service("default", &name).cluster_ip(v4).port("udp", "UDP", 53, 8000 + n).build(),
            slice("default", &name, &name)
                .port("udp", "UDP", 8000 + n)
                .endpoints(pods.iter().map(Pod::endpoint4))
                .build(),
        ]);
        services.insert(SocketAddr::from((v4, 53)), None::<String>);
    }
    let client = world.pod("client");
    for to in services.keys() {
        eventually("an answer", || client.run(|| ask(Via::Udp, *to)));
    }
    let any = *services.keys().next().unwrap();
    let session = client.run(|| UdpSession::open(any, PATIENCE)).unwrap();
    for _round in 0..5 {
        for (to, before) in &mut services {
            let answer = session.ask_to(b"x", *to).unwrap();
            assert_eq!(answer.remote, *to);
            let endpoint = before.get_or_insert_with(|| answer.endpoint.clone());
            assert_eq!(answer.endpoint, *endpoint, "{to} moved to another endpoint");
        }
    }
}

#[test]
fn a_pod_reaches_itself() {
    if !available() {
        return;
    }
    let world = World::new("hairpin", From::Manifests, &[("node-a", &["web-1"])]);
    let (v4, v6) = cluster_ips();
    let pod = world.pod("web-1");
    let _server = pod.serve(8080).unwrap();
    world.apply(&web("web", (v4, v6), &[&pod]));
    for to in [(v4, 80).into(), (v6, 80).into()] {
        for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
            until_answered_by(&pod, via, to, "web-1");
        }
    }
}

#[test]
fn a_connection_outlives_its_endpoints_place_in_the_service() {
    if !available() {
        return;
    }
    let world = World::new("outlives", From::Manifests, &[("node-a", &["client", "web-1", "web-2"])]);
    let (v4, v6) = cluster_ips();
    let pods = ["web-1", "web-2"].map(|name| world.pod(name));
    let _servers = pods.each_ref().map(|pod| pod.serve(8080).unwrap());
    world.apply(&web("web", (v4, v6), &[&pods[0]]));
    let client = world.pod("client");
    let to = SocketAddr::from((v4, 80));
    until_answered_by(&client, Via::Tcp, to, "web-1");
    let mut session = client.run(|| TcpSession::connect(to, PATIENCE)).unwrap();
    assert_eq!(session.ask(b"x").unwrap().endpoint, "web-1");
    world.apply(&web("web", (v4, v6), &[&pods[1]]));
    until_answered_by(&client, Via::Tcp, to, "web-2");
    let answer = session.ask(b"x").unwrap();
    assert_eq!((answer.endpoint.as_str(), answer.remote), ("web-1", to));
}

#[test]
fn a_nonblocking_connect_goes_through_as_any() {
    if !available() {
        return;
    }
    let world = World::new("nonblocking", From::Manifests, &[("node-a", &["client", "web-1"])]);
    let (v4, v6) = cluster_ips();
    let pod = world.pod("web-1");
    let _server = pod.serve(8080).unwrap();
    world.apply(&web("web", (v4, v6), &[&pod]));
    let client = world.pod("client");
    until_answered_by(&client, Via::Tcp, (v4, 80).into(), "web-1");
    client.run(|| {
        // connect_timeout connects without blocking and polls.
        let stream = TcpStream::connect_timeout(&(v4, 80).into(), PATIENCE).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), (v4, 80).into());
        let refused = TcpStream::connect_timeout(&(v4, 99).into(), PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}
