//! What the addresses of the node's links decide.

use super::*;

fn node_port(cluster_ip: &str) -> Value {
    json!({"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
}

fn external(cluster_ip: &str, external_ip: &str, vip: &str) -> Value {
    json!({
        "metadata": {"name": "external", "namespace": "ns"},
        "spec": {"clusterIP": cluster_ip, "externalIPs": [external_ip], "ports": HTTP()},
        "status": {"loadBalancer": {"ingress": [{"ip": vip}]}},
    })
}

/// The addresses of a Service's frontends that are said to be the node's own.
fn own(agent: &Agent, service: &str) -> Vec<String> {
    let plan = agent.plan(service, Family::V4).expect("a plan");
    plan.frontends
        .iter()
        .filter(|frontend| frontend.local)
        .map(|frontend| frontend.address.to_string())
        .collect()
}

fn changed(outcome: &Outcome) -> Vec<&str> {
    outcome.changes.iter().map(|change| &*change.id.service.name).collect()
}

#[test]
fn node_ports_follow_the_addresses_on_links() {
    let mut agent = agent();
    agent.node(&["172.18.0.2", "198.51.100.1"]);
    agent.service("web", node_port("10.96.0.1"));
    let node_ports = |agent: &Agent| agent.frontends("web", Family::V4).split_off(1);
    let loopback = "NodePort 127.0.0.1:30080";
    assert_eq!(node_ports(&agent), [loopback, "NodePort 172.18.0.2:30080", "NodePort 198.51.100.1:30080"]);
    // What the Node object names is on no link: nothing that is sent to it arrives with it here.
    let outcome = agent.local_addresses(&["10.244.1.1", "172.18.0.2"]);
    assert_eq!(changed(&outcome), ["web"]);
    assert_eq!(node_ports(&agent), ["NodePort 10.244.1.1:30080", loopback, "NodePort 172.18.0.2:30080"]);
    agent.local_addresses(&["172.18.0.2", "172.18.0.9"]);
    assert_eq!(node_ports(&agent), [loopback, "NodePort 172.18.0.2:30080", "NodePort 172.18.0.9:30080"]);
    assert_eq!(own(&agent, "web"), ["127.0.0.1", "172.18.0.2", "172.18.0.9"]);
}

#[test]
fn an_address_that_is_the_nodes_own_is_marked() {
    let mut agent = agent();
    agent.node(&["192.0.2.1"]);
    agent.service_with(external("10.96.0.1", "192.0.2.1", "203.0.113.1"));
    assert_eq!(own(&agent, "external"), ["192.0.2.1"], "the Node object's, until links are known");
    agent.local_addresses(&["172.18.0.2"]);
    assert_eq!(own(&agent, "external"), [] as [&str; 0]);
    // A virtual address that a speaker has put on a link, and a cluster IP that a DNS cache has.
    let outcome = agent.local_addresses(&["172.18.0.2", "203.0.113.1", "10.96.0.1"]);
    assert_eq!(changed(&outcome), ["external"]);
    assert_eq!(own(&agent, "external"), ["10.96.0.1", "203.0.113.1"]);
    agent.local_addresses(&["172.18.0.2"]);
    assert_eq!(own(&agent, "external"), [] as [&str; 0]);
}

#[test]
fn only_services_that_an_address_can_matter_to_are_planned_again() {
    let mut agent = agent();
    agent.node(&["172.18.0.2"]);
    agent.service("plain", json!({"clusterIP": "10.96.0.1", "ports": HTTP()}));
    agent.service("ports", node_port("10.96.0.2"));
    agent.service_with(external("10.96.0.3", "192.0.2.1", "203.0.113.1"));
    let dirty = |agent: &mut Agent, addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let dirty = agent.store.apply(Change::LocalAddresses(addresses));
        assert!(!dirty.is_everything());
        agent.planner.plan(&agent.store, &dirty);
        let mut names: Vec<String> = dirty.services().map(|name| name.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(dirty(&mut agent, &["172.18.0.2"]), [] as [&str; 0], "as the Node object said");
    assert_eq!(dirty(&mut agent, &["172.18.0.2", "172.18.0.3"]), ["ports"]);
    assert_eq!(dirty(&mut agent, &["172.18.0.3", "172.18.0.2"]), [] as [&str; 0], "the same");
    assert_eq!(dirty(&mut agent, &["172.18.0.2", "192.0.2.1"]), ["external", "ports"]);
    assert_eq!(dirty(&mut agent, &["172.18.0.2"]), ["external", "ports"]);
    assert_eq!(dirty(&mut agent, &["10.96.0.1", "172.18.0.2"]), ["plain", "ports"]);
}

#[test]
fn a_family_that_no_link_has_an_address_of_is_said() {
    let mut agent = agent();
    agent.node(&["172.18.0.2"]);
    agent.service("web", node_port("10.96.0.1"));
    let outcome = agent.local_addresses(&["fd00::2"]);
    assert_eq!(agent.frontends("web", Family::V4), ["ClusterIp 10.96.0.1:80", "NodePort 127.0.0.1:30080"]);
    let said = messages(&outcome);
    assert!(
        matches!(&*said, [one] if one.starts_with("Node: this node has no address of family IPv4")),
        "{said:?}"
    );
    assert_eq!(messages(&agent.local_addresses(&["172.18.0.2"])), [] as [&str; 0]);
}

#[test]
fn primary_is_what_the_node_object_names_first() {
    let mut agent = Agent::new(NodePortAddresses::Primary);
    agent.node(&["172.18.0.2", "172.18.0.3"]);
    agent.service("web", node_port("10.96.0.1"));
    for links in [&["172.18.0.2", "172.18.0.3"][..], &["10.0.0.1"]] {
        agent.local_addresses(links);
        assert_eq!(
            agent.frontends("web", Family::V4),
            ["ClusterIp 10.96.0.1:80", "NodePort 172.18.0.2:30080"]
        );
    }
}

#[test]
fn loopback_and_external_ips_can_be_left_out() {
    let config =
        PlannerConfig { loopback_node_ports: false, external_ips: false, ..PlannerConfig::default() };
    let mut agent = Agent::with(config);
    agent.node(&["172.18.0.2"]);
    agent.service("web", node_port("10.96.0.1"));
    assert_eq!(agent.frontends("web", Family::V4), ["ClusterIp 10.96.0.1:80", "NodePort 172.18.0.2:30080"]);
    agent.service_with(external("10.96.0.2", "192.0.2.1", "203.0.113.1"));
    assert_eq!(
        agent.frontends("external", Family::V4),
        ["ClusterIp 10.96.0.2:80", "LoadBalancer 203.0.113.1:80"]
    );
}

#[test]
fn an_address_that_was_given_is_the_first_of_its_family() {
    let mut agent = Agent::with(PlannerConfig {
        node_port_addresses: NodePortAddresses::Primary,
        node_address: "192.0.2.9".parse().ok(),
        ..PlannerConfig::default()
    });
    agent.service("web", node_port("10.96.0.1"));
    let node_ports = |agent: &Agent| agent.frontends("web", Family::V4).split_off(1);
    assert_eq!(node_ports(&agent), ["NodePort 192.0.2.9:30080"], "without a Node object");
    agent.node(&["172.18.0.2", "192.0.2.9"]);
    assert_eq!(node_ports(&agent), ["NodePort 192.0.2.9:30080"]);
    let primary = |family| agent.planner.here.primary(family);
    assert_eq!((primary(Family::V4), primary(Family::V6)), ("192.0.2.9".parse().ok(), None));
}
