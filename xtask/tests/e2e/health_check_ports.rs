//! The ports where load balancers ask whether a node has endpoints of a Service.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use xtask::lab::{
    AgentSpec, Place, available,
    objects::{EndpointBuilder, service, slice},
};

use crate::{
    helpers::until_logged,
    http::{Response, get, request, until, until_closed},
    packet::{exposed::Exposed, stage::Stage},
    world::{From, SOURCES, cluster_ips, eventually},
};

/// `spec.healthCheckNodePort` of most of them.
pub(crate) const PORT: u16 = 31_900;

/// The port on both addresses of a node.
pub(crate) fn at(node: &Place, port: u16) -> [SocketAddr; 2] {
    node.addresses().both().map(|ip| (ip, port).into())
}

/// Waits until a node says that it has so many endpoints, in both families, to this client.
pub(crate) fn until_told(client: &Place, node: &Place, port: u16, endpoints: u64) {
    let code = if endpoints > 0 { 200 } else { 503 };
    for to in at(node, port) {
        let counts = |response: &Response| response.json()["localEndpoints"] == endpoints;
        let response = until(client, to, "/", code, counts);
        assert_eq!(response.headers["x-load-balancing-endpoint-weight"], endpoints.to_string());
    }
}

/// Waits until a node's port is closed in both families.
pub(crate) fn until_gone(client: &Place, node: &Place, port: u16) {
    at(node, port).into_iter().for_each(|to| until_closed(client, to));
}

#[test]
fn load_balancers_are_told_how_many_endpoints_a_node_has() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let stage = Stage::following("checks", from);
        let exposed = Exposed::new("web");
        let (client, a, b) = (&stage.outside, stage.place("node-a"), stage.place("node-b"));
        let service = |port: u16| exposed.service().health_check_port(port).build();
        stage.apply(&[service(PORT)]);
        until_told(client, &a, PORT, 0);
        stage.apply(&exposed.slices(&[stage.member("web-a"), stage.member("node-a"), stage.member("web-b")]));
        until_told(client, &a, PORT, 2);
        until_told(client, &b, PORT, 1);
        // Pods and the host itself may ask too.
        for place in ["client-a", "client-b", "node-a", "node-b"].map(|name| stage.place(name)) {
            until_told(&place, &a, PORT, 2);
        }
        let response = request(client, at(&a, PORT)[0], "DELETE", "/any/path?x=y").unwrap();
        assert_eq!(response.code, 200);
        assert_eq!(response.headers["content-type"], "application/json");
        assert_eq!(response.headers["x-content-type-options"], "nosniff");
        assert_eq!(
            response.json(),
            json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": 2,
                   "serviceProxyHealthy": true})
        );
        // What is not ready does not count; what leaves does not either, although it serves on.
        let not_ready =
            stage.member("web-a").with(|endpoint: EndpointBuilder| endpoint.conditions(false, false, false));
        stage.apply(
            &exposed
                .slices(&[not_ready, stage.member("node-a").with(|e: EndpointBuilder| e.terminating(true))]),
        );
        until_told(client, &a, PORT, 0);
        until_told(client, &b, PORT, 0);
        stage.apply(&exposed.slices(&[stage.member("web-a")]));
        until_told(client, &a, PORT, 1);

        // The port moves; another policy or type closes it; the Service goes.
        stage.apply(&[service(PORT + 1)]);
        until_told(client, &a, PORT + 1, 1);
        until_gone(client, &a, PORT);
        for other in
            [exposed.service().build(), exposed.service().health_check_port(PORT).kind("NodePort").build()]
        {
            stage.apply(&[other]);
            until_gone(client, &a, PORT + 1);
            stage.apply(&[service(PORT)]);
            until_told(client, &a, PORT, 1);
            stage.apply(&[service(PORT + 1)]);
        }
        stage.world.delete(&service(PORT + 1));
        until_gone(client, &a, PORT + 1);
        until_gone(client, &b, PORT);
    }
}

#[test]
fn they_are_asked_where_node_ports_are() {
    if !available() {
        return;
    }
    let start = |spec: AgentSpec| {
        let only = "192.0.2.0/24,fd00:ffff::/64";
        spec.args(&["--nodeport-addresses", only])
    };
    let stage = Stage::with("checks-where", start);
    let exposed = Exposed::new("web");
    let a = stage.place("node-a");
    stage.apply(&[exposed.service().health_check_port(PORT).build()]);
    stage.apply(&exposed.slices(&[stage.member("web-a")]));
    // An endpoint shows that the Service is in effect.
    let balancer = exposed.balancer()[0];
    eventually("the Service", || {
        stage
            .outside
            .run(|| xtask::lab::ask_within(xtask::lab::Via::Tcp, balancer, Duration::from_millis(250)))
    });
    until_gone(&stage.outside, &a, PORT);
    // Addresses that come later are served.
    let added: [SocketAddr; 2] =
        ["192.0.2.77:31900", "[fd00:ffff::77]:31900"].map(|text| text.parse().expect("an address"));
    for to in added {
        a.add_address("eth0", to.ip()).expect("adding an address");
        until(&a, to, "/", 200, |_| true);
    }
    until_gone(&stage.outside, &a, PORT);
}

#[test]
fn a_port_that_is_taken_is_an_event_of_the_service_and_tried_again() {
    if !available() {
        return;
    }
    let stage = Stage::following("checks-taken", From::Api);
    let exposed = Exposed::new("web");
    let (client, a, b) = (&stage.outside, stage.place("node-a"), stage.place("node-b"));
    let taken = std::net::TcpListener::bind;
    let other = a.run(|| taken((a.addresses().v4, PORT))).expect("taking the port");
    let mark = stage.world.agent("node-a").mark();
    stage.apply(&[exposed.service().health_check_port(PORT).build()]);
    stage.apply(&exposed.slices(&[stage.member("web-a"), stage.member("web-b")]));
    until_told(client, &b, PORT, 1);
    until_logged(&stage.world, "node-a", mark, &["default/web", "cannot listen", "0.0.0.0:31900"]);
    // IPv6 has its own.
    until(client, at(&a, PORT)[1], "/", 200, |_| true);
    let reason = "FailedToStartServiceHealthcheck";
    let of_it = || -> Vec<Value> {
        stage.world.api().events().into_iter().filter(|event| event["reason"] == reason).collect()
    };
    eventually("an event", || if of_it().is_empty() { Err("none") } else { Ok(()) });
    drop(other);
    until_told(client, &a, PORT, 1);
    let [event] = &of_it()[..] else { panic!("once for all tries: {:?}", of_it()) };
    assert_eq!((&event["type"], &event["action"]), (&json!("Warning"), &json!("Listen")));
    assert_eq!(event["regarding"]["kind"], "Service");
    assert_eq!(
        (&event["regarding"]["namespace"], &event["regarding"]["name"]),
        (&json!("default"), &json!("web"))
    );
    assert_eq!(event["reportingInstance"], "kube-proxy-node-a");
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("node node-a") && note.contains("31900") && note.contains("Address"), "{note}");
}

#[test]
fn a_thousand_services_have_their_ports() {
    if !available() {
        return;
    }
    const MANY: u16 = 1000;
    let stage = Stage::following("checks-many", From::Api);
    let (client, a) = (&stage.outside, stage.place("node-a"));
    let web = &stage.world.pod("web-a");
    let name = |n: u16| format!("web-{n}");
    let objects: Vec<Value> = (0..MANY)
        .flat_map(|n| {
            let ips = cluster_ips();
            let ports = |of: u16| 20_000 + of;
            let service =
                service("default", &name(n)).cluster_ip(ips.0).cluster_ip(ips.1).kind("LoadBalancer");
            [
                service.port("http", "TCP", 80, 8080).health_check_port(ports(n)).build(),
                slice("default", &name(n), &name(n))
                    .port("http", "TCP", 8080)
                    .endpoint(web.endpoint4())
                    .build(),
            ]
        })
        .collect();
    stage.apply(&objects);
    for n in [0, MANY / 2, MANY - 1] {
        let [v4, v6] = at(&a, 20_000 + n);
        until(client, v4, "/", 200, |_| true);
        until(client, v6, "/", 503, |_| true);
    }
    let last = name(MANY - 1);
    let leaving = slice("default", &last, &last).port("http", "TCP", 8080);
    stage.apply(&[leaving.endpoint(web.endpoint4().terminating(true)).build()]);
    until(client, at(&a, 20_000 + MANY - 1)[0], "/", 503, |_| true);
    assert_eq!(get(client, at(&a, 20_000)[0], "/").unwrap().code, 200);
    objects
        .iter()
        .filter(|object| object["kind"] == "Service")
        .for_each(|service| stage.world.delete(service));
    for n in [0, MANY / 2, MANY - 1] {
        until_gone(client, &a, 20_000 + n);
    }
}
