use super::*;

fn balancer(more: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ipFamilies": ["IPv4", "IPv6"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000,
        "ports": [{"name": "http", "port": 80, "nodePort": 30_080}, {"name": "more", "port": 81}],
    });
    let (Value::Object(fields), Value::Object(more)) = (&mut spec, more) else { panic!("an object") };
    fields.extend(more);
    spec
}

fn endpoint(last: u8, node: &str, ready: bool) -> Value {
    json!({"addresses": [format!("10.0.0.{last}")], "nodeName": node,
           "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
}

/// `name family port endpoints`, or `name family gone`.
fn told(outcome: &Outcome) -> Vec<String> {
    let text = |change: &HealthCheckChange| {
        let HealthCheckId { service, family } = &change.id;
        match change.check {
            Some(HealthCheck { port, endpoints }) => {
                format!("{} {family:?} {port} {endpoints}", service.name)
            }
            None => format!("{} {family:?} gone", service.name),
        }
    };
    outcome.health_checks.iter().map(text).collect()
}

#[test]
fn ready_addresses_of_this_node_count_once() {
    let mut agent = agent();
    assert_eq!(told(&agent.service("web", balancer(json!({})))), ["web V4 31000 0", "web V6 31000 0"]);
    // Two ports of one address; another node's; one that only finishes what it has.
    let ports = json!([{"name": "http", "port": 8080}, {"name": "more", "port": 8081}]);
    let endpoints =
        |ready| json!([endpoint(1, "here", ready), endpoint(2, "there", true), endpoint(3, "here", false)]);
    let outcome = agent.slice("web-1", "web", json!({"endpoints": endpoints(true), "ports": ports}));
    assert_eq!(told(&outcome), ["web V4 31000 1"]);
    let more = json!({"endpoints": [endpoint(1, "here", true), endpoint(4, "here", true)], "ports": ports});
    assert_eq!(told(&agent.slice("web-2", "web", more.clone())), ["web V4 31000 2"]);
    assert_eq!(told(&agent.slice("web-2", "web", more)), [] as [&str; 0]);
    // All are leaving: they serve on, but the load balancer is told to go.
    let outcome = agent.slice("web-2", "web", json!({"endpoints": [endpoint(4, "here", false)]}));
    assert_eq!(told(&outcome), ["web V4 31000 1"]);
    let outcome = agent.slice("web-1", "web", json!({"endpoints": endpoints(false), "ports": ports}));
    assert_eq!(told(&outcome), ["web V4 31000 0"]);
    let plan = agent.plan("web", Family::V4).unwrap();
    assert_eq!(plan.list(EndpointList::Local).count(), 3);
    // No port, no endpoint.
    let outcome = agent.slice("web-3", "web", json!({"endpoints": [endpoint(5, "here", true)], "ports": []}));
    assert_eq!(told(&outcome), [] as [&str; 0]);
}

#[test]
fn only_load_balancers_with_policy_local_are_asked() {
    for (more, expected) in [
        (json!({}), &["web V4 31000 0", "web V6 31000 0"][..]),
        (
            json!({"ipFamilies": ["IPv6"], "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
            &["web V6 31000 0"],
        ),
        (json!({"externalTrafficPolicy": "Cluster"}), &[]),
        (json!({"type": "NodePort"}), &[]),
        (json!({"type": "ClusterIP", "externalIPs": ["192.0.2.1"]}), &[]),
        (json!({"healthCheckNodePort": 0}), &[]),
        (json!({"healthCheckNodePort": null}), &[]),
        (json!({"ports": []}), &[]),
    ] {
        assert_eq!(told(&agent().service("web", balancer(more.clone()))), expected, "{more}");
    }
    let outcome = agent().service("web", balancer(json!({"healthCheckNodePort": 70_000})));
    assert_eq!(told(&outcome), [] as [&str; 0]);
    assert!(messages(&outcome).iter().any(|message| message.contains("spec.healthCheckNodePort 70000")));
}

#[test]
fn they_change_and_go_with_the_service() {
    let mut agent = agent();
    agent.service("web", balancer(json!({})));
    let outcome = agent.service("web", balancer(json!({"healthCheckNodePort": 31_001})));
    assert_eq!(told(&outcome), ["web V4 31001 0", "web V6 31001 0"]);
    let outcome = agent.service("web", balancer(json!({"externalTrafficPolicy": "Cluster"})));
    assert_eq!(told(&outcome), ["web V4 gone", "web V6 gone"]);
    agent.service("web", balancer(json!({})));
    let outcome = agent.apply(Change::ServiceGone(ObjectName::new("ns", "web")));
    assert_eq!(told(&outcome), ["web V4 gone", "web V6 gone"]);
    // One that another takes an address from keeps its own.
    agent.service("web", balancer(json!({})));
    assert_eq!(
        told(&agent.service("other", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}))),
        [] as [&str; 0]
    );
}

#[test]
fn they_listen_where_node_ports_are_served() {
    let cidrs =
        |list: &[&str]| NodePortAddresses::Cidrs(list.iter().map(|cidr| cidr.parse().unwrap()).collect());
    for (setting, expected) in [
        (NodePortAddresses::All, &["0.0.0.0", "::"][..]),
        (NodePortAddresses::Primary, &["192.0.2.1", "fd00::1"]),
        (cidrs(&["0.0.0.0/0", "::/0"]), &["0.0.0.0", "::"]),
        // A list without a family leaves it open.
        (cidrs(&["192.0.2.2/32", "127.0.0.0/8"]), &["::", "192.0.2.2", "127.0.0.1"]),
        (cidrs(&["198.51.100.0/24", "fd00::/8"]), &["fd00::1"]),
    ] {
        let mut agent = Agent::new(setting.clone());
        agent.node(&["192.0.2.1", "fd00::1"]);
        agent.service(
            "web",
            balancer(json!({"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]})),
        );
        agent.local_addresses(&["192.0.2.1", "fd00::1"]);
        // Also for a Service without node ports, addresses are followed.
        agent.local_addresses(&["192.0.2.1", "192.0.2.2", "fd00::1"]);
        let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(agent.planner.health_check_addresses(), expected, "{setting:?}");
    }
}
