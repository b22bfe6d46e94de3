//! Who reaches whom, and what is seen of it: clients in pods, on nodes and in endpoints, in both families.

use std::net::{IpAddr, SocketAddr};

use xtask::lab::{
    Place, TcpSession, UdpSession, Via, ask, available,
    objects::{service, slice},
};

use crate::{
    fixture::{Member, TARGET, Web, serve, until_exactly, until_served_by},
    world::{From, SOON, SOURCES, World, cluster_ips},
};

/// Clients and endpoints on each of two nodes.
const TWO_NODES: &[(&str, &[&str])] =
    &[("node-a", &["client", "web-1", "web-2"]), ("node-b", &["other", "web-3"])];

const ENDPOINTS: [&str; 3] = ["web-1", "web-2", "web-3"];

const EVERY_VIA: [Via; 3] = [Via::Tcp, Via::Udp, Via::UdpConnected];

#[test]
fn row_004_123_addresses_of_clients_are_preserved() {
    if !available() {
        return;
    }
    let world = World::new("row-004", From::Manifests, TWO_NODES);
    let _servers = serve(&world, &["web-3"]);
    let web = Web::new("web");
    let endpoint = world.pod("web-3");
    world.apply(&web.of(&[&endpoint]));
    // Pods of the same node and of another, the endpoint itself, and hosts.
    let pods = ["client", "web-1", "web-2", "other", "web-3"].map(|name| world.pod(name));
    let nodes = ["node-a", "node-b"].map(|name| world.node(name));
    let places: Vec<&Place> = pods.iter().map(|pod| &**pod).chain(nodes.iter().map(|node| &**node)).collect();
    for place in places {
        until_served_by(place, &web, &["web-3"]);
        let direct = endpoint.addresses().both().map(|ip| SocketAddr::new(ip, TARGET));
        for to in web.both().into_iter().chain(direct) {
            for via in EVERY_VIA {
                let answer = place.run(|| ask(via, to)).unwrap();
                let own = place.addresses();
                let own: IpAddr = if to.is_ipv4() { own.v4.into() } else { own.v6.into() };
                assert_eq!(answer.peer.ip(), own, "{} via {via:?} to {to}", place.name());
            }
        }
    }
}

#[test]
fn row_062_to_070_every_kind_of_client_reaches_every_endpoint() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-062", from, TWO_NODES);
        let _servers = serve(&world, &ENDPOINTS);
        let web = Web::new("web");
        let pods = ENDPOINTS.map(|name| world.pod(name));
        world.apply(&web.of(&pods.each_ref()));
        // pod-Service, node-Service, endpoint-Service; the endpoints themselves are among the answers.
        let clients = ["client", "other", "web-1", "web-3"].map(|name| world.pod(name));
        for client in &clients {
            until_served_by(client, &web, &ENDPOINTS);
        }
        for node in ["node-a", "node-b"] {
            until_served_by(&world.node(node), &web, &ENDPOINTS);
        }
    }
}

#[test]
fn row_079_080_large_requests() {
    if !available() {
        return;
    }
    let world = World::new("row-079", From::Api, TWO_NODES);
    let _servers = serve(&world, &["web-1", "web-3"]);
    // One endpoint on the client's node, one across the router; each alone, to be sure of both.
    for endpoint in ["web-1", "web-3"] {
        let web = Web::new(endpoint);
        world.apply(&web.of(&[&world.pod(endpoint)]));
        for place in [&*world.pod("client"), &*world.pod("web-1"), &*world.node("node-a")] {
            until_served_by(place, &web, &[endpoint]);
            for to in web.both() {
                place.run(|| {
                    // Beyond one frame of 1500 bytes, and beyond several.
                    for length in [2000, 8192] {
                        let message: Vec<u8> = (0..length).map(|n| b'a' + (n % 23) as u8).collect();
                        let what = format!("{length} bytes from {} to {to}", place.name());
                        let mut tcp = TcpSession::connect(to, SOON).unwrap();
                        let connected = UdpSession::connect(to, SOON).unwrap();
                        let unconnected = UdpSession::open(to, SOON).unwrap();
                        for answer in [
                            tcp.ask(&message),
                            connected.ask(&message),
                            unconnected.ask_to(&message, to),
                            // Again on the same sockets.
                            tcp.ask(&message),
                            connected.ask(&message),
                            unconnected.ask_to(&message, to),
                        ] {
                            let answer = answer.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                            assert!(answer.echo == message, "{what}: another came back");
                            assert_eq!((answer.endpoint.as_str(), answer.remote), (endpoint, to), "{what}");
                        }
                    }
                });
            }
        }
    }
}

#[test]
fn row_081_endpoints_in_the_hosts_network() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-081", from, TWO_NODES);
        let nodes = ["node-a", "node-b"].map(|name| world.node(name));
        let _servers = nodes.each_ref().map(|node| node.serve(TARGET).unwrap());
        let web = Web::new("web");
        world.apply(&[web.service().build()]);
        world.apply(&web.slices(&nodes.each_ref().map(|node| Member::new(node, node.name()))));
        for place in [&*world.pod("client"), &*world.pod("other"), &*nodes[0], &*nodes[1]] {
            until_served_by(place, &web, &["node-a", "node-b"]);
        }
    }
}

#[test]
fn row_086_to_097_either_family_first_or_alone() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-086", from, TWO_NODES);
        let _servers = serve(&world, &ENDPOINTS);
        let clients = ["client", "web-3"].map(|name| world.pod(name));
        for (name, order) in [
            ("v4-first", &[true, false][..]),
            ("v6-first", &[false, true]),
            ("v4-alone", &[true]),
            ("v6-alone", &[false]),
        ] {
            let (v4, v6) = cluster_ips();
            let ip = |first: &bool| if *first { IpAddr::from(v4) } else { v6.into() };
            let ips: Vec<IpAddr> = order.iter().map(ip).collect();
            let service = ips.iter().fold(service("default", name), |service, ip| service.cluster_ip(*ip));
            world.apply(&[service.port("tcp", "TCP", 80, TARGET).port("udp", "UDP", 80, TARGET).build()]);
            for family in [4, 6] {
                let slice = ENDPOINTS.iter().fold(
                    slice("default", &format!("{name}-{family}"), name)
                        .port("tcp", "TCP", TARGET)
                        .port("udp", "UDP", TARGET),
                    |slice, pod| {
                        let pod = world.pod(pod);
                        slice.endpoint(if family == 4 { pod.endpoint4() } else { pod.endpoint6() })
                    },
                );
                world.apply(&[slice.build()]);
            }
            for ip in ips {
                for via in EVERY_VIA {
                    for client in &clients {
                        until_exactly(client, via, (ip, 80).into(), &ENDPOINTS);
                    }
                }
            }
        }
    }
}
