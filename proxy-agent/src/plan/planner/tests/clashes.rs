//! Two service ports claim one address, port and protocol.

use super::*;

fn claimant(agent: &mut Agent, name: &str, created: &str, cluster_ip: &str) -> Outcome {
    agent.service_with(json!({
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
        "spec": {"clusterIP": cluster_ip, "externalIPs": ["192.0.2.1"], "ports": HTTP()},
    }))
}

fn holders(agent: &Agent, names: &[&str]) -> Vec<bool> {
    let holds =
        |name: &&str| agent.frontends(name, Family::V4).contains(&"ExternalIp 192.0.2.1:80".to_owned());
    names.iter().map(holds).collect()
}

#[test]
fn the_older_service_wins_and_hands_over_when_it_goes() {
    let mut agent = agent();
    claimant(&mut agent, "young", "2026-01-02T00:00:00Z", "10.96.0.1");
    assert_eq!(holders(&agent, &["young"]), [true]);

    let outcome = claimant(&mut agent, "old", "2026-01-01T00:00:00Z", "10.96.0.2");
    assert_eq!(holders(&agent, &["old", "young"]), [true, false]);
    assert_eq!(outcome.changes.len(), 2, "the one that lost it is a change too");
    assert_eq!(
        messages(&outcome),
        ["Service ns/young: spec.ports[0] is not served on 192.0.2.1:80/TCP: it belongs to Service ns/old, \
          which is older; change either of them"]
    );
    // Its other frontends are served all the same.
    assert_eq!(agent.frontends("young", Family::V4), ["ClusterIp 10.96.0.1:80"]);

    let outcome = agent.apply(Change::ServiceGone(ObjectName::new("ns", "old")));
    assert_eq!(holders(&agent, &["young"]), [true]);
    let changed: Vec<_> =
        outcome.changes.iter().map(|change| (&*change.id.service.name, change.plan.is_some())).collect();
    assert_eq!(changed, [("old", false), ("young", true)]);
    assert_eq!(outcome.problems, []);
}

#[test]
fn ties_go_by_name_and_no_age_is_youngest() {
    let mut agent = agent();
    claimant(&mut agent, "b", "2026-01-01T00:00:00Z", "10.96.0.2");
    let said = messages(&claimant(&mut agent, "a", "2026-01-01T00:00:00Z", "10.96.0.1"));
    assert!(said[0].contains("Service ns/b: ") && said[0].contains("first by name"), "{said:?}");
    agent.service("0", json!({"clusterIP": "10.96.0.3", "externalIPs": ["192.0.2.1"], "ports": HTTP()}));
    assert_eq!(holders(&agent, &["a", "b", "0"]), [true, false, false]);
    // The winner lets go of the address, and stays otherwise.
    agent.service_with(json!({
        "metadata": {"name": "a", "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.1", "ports": HTTP()},
    }));
    assert_eq!(holders(&agent, &["a", "b", "0"]), [false, true, false]);
}

#[test]
fn a_service_that_is_replaced_by_a_younger_one_of_its_name_loses() {
    let mut agent = agent();
    claimant(&mut agent, "a", "2026-01-01T00:00:00Z", "10.96.0.1");
    claimant(&mut agent, "b", "2026-01-02T00:00:00Z", "10.96.0.2");
    claimant(&mut agent, "a", "2026-01-03T00:00:00Z", "10.96.0.1");
    assert_eq!(holders(&agent, &["a", "b"]), [false, true]);
}

#[test]
fn the_same_port_twice_in_a_service() {
    let mut agent = agent();
    let ports = json!([{"name": "http", "port": 80}, {"name": "other", "port": 80}]);
    let outcome = agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": ports}));
    assert_eq!(agent.frontends("web", Family::V4), ["ClusterIp 10.96.0.1:80"]);
    let won: Vec<_> = outcome
        .changes
        .iter()
        .map(|change| (&*change.id.port_name, change.plan.as_ref().expect("a plan").frontends.len()))
        .collect();
    assert_eq!(won, [("http", 1), ("other", 0)]);
    assert_eq!(
        messages(&outcome),
        [
            "Service ns/web: spec.ports[1] is not served on 10.96.0.1:80/TCP: it belongs to spec.ports[0], which \
          comes first; change either of them"
        ]
    );
}

#[test]
fn the_same_port_name_twice_in_a_service() {
    let mut agent = agent();
    let ports = json!([{"name": "http", "port": 80}, {"name": "http", "port": 81}]);
    let outcome = agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": ports}));
    assert_eq!(outcome.changes.len(), 1);
    assert_eq!(agent.frontends("web", Family::V4), ["ClusterIp 10.96.0.1:80"]);
    assert!(messages(&outcome)[0].contains("spec.ports[1] has the name \"http\""));
}

/// CVE-2020-8554: whoever may write Services must not take the addresses of others.
#[test]
fn an_external_ip_does_not_take_a_cluster_ip_away() {
    let mut agent = agent();
    let thief = |address: &str| {
        json!({
            "metadata": {"name": "thief", "namespace": "ns", "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"clusterIP": "10.96.0.1", "externalIPs": [address], "ports": HTTP()},
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        })
    };
    agent.service_with(json!({
        "metadata": {"name": "victim", "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.2", "ports": HTTP()},
    }));
    let said = messages(&agent.service_with(thief("10.96.0.2")));
    assert_eq!(agent.frontends("victim", Family::V4), ["ClusterIp 10.96.0.2:80"]);
    assert_eq!(agent.frontends("thief", Family::V4), ["ClusterIp 10.96.0.1:80"]);
    assert_eq!(
        said,
        [
            "Service ns/thief: spec.ports[0] is not served on 10.96.0.2:80/TCP: it belongs to Service ns/victim, \
          which has it as its cluster IP; change either of them"
        ]
    );
}

/// KUBE-PROXY.md 1.8: node ports are last in the order of lookup.
#[test]
fn a_node_port_gives_way_to_an_address_of_its_own() {
    let mut agent = agent();
    agent.node(&["172.18.0.2"]);
    agent.service_with(json!({
        "metadata": {"name": "ports", "namespace": "ns", "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    }));
    let spec = json!({
        "clusterIP": "10.96.0.2", "externalIPs": ["172.18.0.2"], "ports": [{"name": "http", "port": 30080}],
    });
    let said = messages(&agent.service("address", spec));
    assert_eq!(agent.frontends("ports", Family::V4), ["ClusterIp 10.96.0.1:80", "NodePort 127.0.0.1:30080"]);
    assert_eq!(
        agent.frontends("address", Family::V4),
        ["ClusterIp 10.96.0.2:30080", "ExternalIp 172.18.0.2:30080"]
    );
    assert!(said[0].contains("node port 172.18.0.2:30080/TCP: it belongs to Service ns/address"), "{said:?}");
}
