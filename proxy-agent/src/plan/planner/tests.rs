use std::net::IpAddr;

use proxy_common::{EndpointList, FrontendKind, Protocol, WhenEmpty};
use serde_json::{Value, json};

use super::{super::HealthCheckId, *};
use crate::state::{Change, Ingest, family_of};

mod addresses;
mod clashes;
mod health_checks;
mod properties;
mod scale;
mod sources;

/// Store and planner together, as the agent has them, on the node `here`.
pub(super) struct Agent {
    ingest: Ingest,
    store: Store,
    planner: Planner,
}

impl Agent {
    pub(super) fn new(node_port_addresses: NodePortAddresses) -> Self {
        Self::with(PlannerConfig { node_port_addresses, ..PlannerConfig::default() })
    }

    pub(super) fn with(config: PlannerConfig) -> Self {
        Self { ingest: Ingest::new("here"), store: Store::default(), planner: Planner::new(config) }
    }

    pub(super) fn apply(&mut self, change: Change) -> Outcome {
        let dirty = self.store.apply(change);
        self.planner.plan(&self.store, &dirty)
    }

    pub(super) fn service(&mut self, name: &str, spec: Value) -> Outcome {
        self.service_with(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}))
    }

    pub(super) fn service_with(&mut self, object: Value) -> Outcome {
        let service = self.ingest.service(&serde_json::from_value(object).expect("a Service"));
        self.apply(Change::Service(service))
    }

    pub(super) fn slice(&mut self, name: &str, service: &str, more: Value) -> Outcome {
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
        });
        let (Value::Object(fields), Value::Object(more)) = (&mut object, more) else { panic!("an object") };
        fields.extend(more);
        let slice = self.ingest.slice(&serde_json::from_value(object).expect("an EndpointSlice"));
        self.apply(Change::Slice(slice))
    }

    pub(super) fn node(&mut self, addresses: &[&str]) -> Outcome {
        let addresses: Vec<_> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let object = json!({"metadata": {"name": "here"}, "status": {"addresses": addresses}});
        let node = self.ingest.node(&serde_json::from_value(object).expect("a Node"));
        self.apply(Change::Node(Some(node)))
    }

    pub(super) fn local_addresses(&mut self, addresses: &[&str]) -> Outcome {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.apply(Change::LocalAddresses(addresses))
    }

    /// The plan of the port `http` of a Service.
    pub(super) fn plan(&self, service: &str, family: Family) -> Option<&ServicePortPlan> {
        let wanted = ObjectName::new("ns", service);
        let mut plans = self.planner.plans();
        let found =
            plans.find(|(id, _)| id.service == wanted && id.family == family && &*id.port_name == "http");
        found.map(|(_, plan)| &**plan)
    }

    /// `kind address:port` of each frontend of the port `http`.
    pub(super) fn frontends(&self, service: &str, family: Family) -> Vec<String> {
        let plan = self.plan(service, family).expect("a plan");
        plan.frontends
            .iter()
            .map(|frontend| {
                format!("{:?} {}", frontend.kind, SocketAddr::new(frontend.address, frontend.port))
            })
            .collect()
    }
}

pub(super) fn agent() -> Agent {
    Agent::new(NodePortAddresses::All)
}

fn messages(outcome: &Outcome) -> Vec<String> {
    outcome.problems.iter().map(ToString::to_string).collect()
}

const HTTP: fn() -> Value = || json!([{"name": "http", "port": 80}]);

#[test]
fn one_frontend_for_each_address() {
    let mut agent = agent();
    agent.node(&["172.18.0.2", "fd00:18::2", "172.18.0.3"]);
    agent.service_with(json!({
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "ipFamilies": ["IPv4", "IPv6"], "externalIPs": ["192.0.2.1", "2001:db8::1"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8::2"}]}},
    }));
    assert_eq!(
        agent.frontends("web", Family::V4),
        [
            "ClusterIp 10.96.0.1:80",
            "ExternalIp 192.0.2.1:80",
            "LoadBalancer 203.0.113.1:80",
            "NodePort 127.0.0.1:30080",
            "NodePort 172.18.0.2:30080",
            "NodePort 172.18.0.3:30080",
        ]
    );
    assert_eq!(
        agent.frontends("web", Family::V6),
        [
            "ClusterIp [fd00:96::1]:80",
            "ExternalIp [2001:db8::1]:80",
            "LoadBalancer [2001:db8::2]:80",
            "NodePort [::1]:30080",
            "NodePort [fd00:18::2]:30080",
        ]
    );
}

#[test]
fn a_family_without_a_cluster_ip_is_skipped() {
    let mut agent = agent();
    agent.service("web", json!({"clusterIP": "10.96.0.1", "externalIPs": ["2001:db8::1"], "ports": HTTP()}));
    assert!(agent.plan("web", Family::V4).is_some());
    assert!(agent.plan("web", Family::V6).is_none());
}

#[test]
fn what_is_not_proxied_has_no_plan() {
    let mut agent = agent();
    for spec in [
        json!({"clusterIP": "None", "ports": HTTP()}),
        json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "ports": HTTP()}),
        json!({"clusterIP": "10.96.0.1"}),
    ] {
        let outcome = agent.service("web", spec);
        assert_eq!(outcome, Outcome::default());
    }
    // A Service that becomes an ExternalName loses what it had.
    assert_eq!(agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": HTTP()})).changes.len(), 1);
    let spec = json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "ports": HTTP()});
    let outcome = agent.service("web", spec);
    assert_eq!(outcome.changes.iter().map(|change| change.plan.is_none()).collect::<Vec<_>>(), [true]);
}

#[test]
fn an_address_in_two_roles_is_one_frontend_and_keeps_its_source_ranges() {
    let mut agent = agent();
    agent.service_with(json!({
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "clusterIP": "10.96.0.1", "externalIPs": ["203.0.113.1", "203.0.113.1"],
            "loadBalancerSourceRanges": ["10.0.0.0/8"], "ports": HTTP(),
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    }));
    assert_eq!(agent.frontends("web", Family::V4), ["ClusterIp 10.96.0.1:80", "LoadBalancer 203.0.113.1:80"]);
}

/// The rows of KUBE-PROXY.md 1.7, and which list each client is sent to (1.4, steps 3 to 7).
#[test]
fn lists_and_what_happens_when_they_are_empty() {
    use EndpointList::{Cluster, Local, None as NoList};
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    let remote = json!([{"addresses": ["10.0.0.1"], "nodeName": "there"}]);
    for (internal_policy, external_policy, endpoints, cluster_ip, external) in [
        ("Cluster", "Cluster", json!([]), (Cluster, WhenEmpty::Reject), (Cluster, WhenEmpty::Reject)),
        ("Local", "Local", json!([]), (Local, WhenEmpty::Reject), (Local, WhenEmpty::Reject)),
        ("Local", "Cluster", remote.clone(), (Local, WhenEmpty::Drop), (Cluster, WhenEmpty::Reject)),
        ("Cluster", "Local", remote.clone(), (Cluster, WhenEmpty::Reject), (Local, WhenEmpty::Drop)),
        ("Local", "Local", remote.clone(), (Local, WhenEmpty::Drop), (Local, WhenEmpty::Drop)),
    ] {
        let what = format!("{internal_policy} {external_policy} {endpoints}");
        let mut agent = agent();
        agent.service(
            "web",
            json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.1", "internalTrafficPolicy": internal_policy,
                "externalTrafficPolicy": external_policy,
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
            }),
        );
        agent.slice("web-1", "web", json!({"endpoints": endpoints}));
        let plan = agent.plan("web", Family::V4).expect("a plan");
        let is_remote = usize::from(endpoints != json!([]));
        assert_eq!(plan.internal_list(ClusterIp), cluster_ip.0, "{what}");
        assert_eq!(plan.when_empty(cluster_ip.0), cluster_ip.1, "{what}");
        assert_eq!(plan.external_list(ClusterIp), NoList, "{what}");
        for kind in [ExternalIp, LoadBalancer, NodePort] {
            // A client in the cluster is served from the cluster list, whatever the policy.
            assert_eq!(plan.internal_list(kind), Cluster, "{what}");
            assert_eq!(plan.list(Cluster).count(), is_remote, "{what}");
            assert_eq!(plan.external_list(kind), external.0, "{what}");
            assert_eq!(plan.when_empty(external.0), external.1, "{what}");
        }
        assert_eq!(plan.list(Local).count(), 0, "{what}");
    }
}

/// KUBE-PROXY.md 1.2: "uses the cluster list" and "uses the local list".
#[test]
fn which_lists_are_made() {
    let own_port = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
    for (what, spec, cluster, local) in [
        ("plain", json!({}), true, false),
        ("internal local", json!({"internalTrafficPolicy": "Local"}), false, true),
        (
            "internal local and from outside",
            json!({"internalTrafficPolicy": "Local", "type": "NodePort", "ports": own_port}),
            true,
            true,
        ),
        (
            "external local",
            json!({"externalTrafficPolicy": "Local", "type": "NodePort", "ports": own_port}),
            true,
            true,
        ),
        (
            "external local, but neither node port nor address yet",
            json!({"externalTrafficPolicy": "Local", "type": "LoadBalancer"}),
            true,
            false,
        ),
        (
            "external local by an external IP of the other family only",
            json!({"externalTrafficPolicy": "Local", "externalIPs": ["fd00::9"]}),
            true,
            false,
        ),
        (
            "external local by an external IP",
            json!({"externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.9"]}),
            true,
            true,
        ),
    ] {
        let mut full = json!({"clusterIP": "10.96.0.1", "ports": HTTP()});
        full.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        let mut agent = agent();
        agent.service("web", full);
        agent.slice("web-1", "web", json!({"endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "here"}]}));
        let plan = agent.plan("web", Family::V4).expect("a plan");
        assert_eq!(plan.list(EndpointList::Cluster).count() == 1, cluster, "{what}");
        assert_eq!(plan.list(EndpointList::Local).count() == 1, local, "{what}");
    }
}

#[test]
fn only_what_differs_is_a_change() {
    let mut agent = agent();
    let endpoints = json!({"endpoints": [{"addresses": ["10.0.0.1"]}]});
    assert_eq!(agent.slice("web-1", "web", endpoints.clone()).changes, []);
    let outcome = agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": HTTP()}));
    assert_eq!(outcome.changes.len(), 1);
    assert_eq!(outcome.changes[0].plan.as_ref().expect("a plan").endpoints.len(), 1);
    assert_eq!(agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": HTTP()})), Outcome::default());
    // Planned again, with the same result.
    let dirty = Dirty::everything();
    assert_eq!(agent.planner.plan(&agent.store, &dirty), Outcome::default());
    // A slice of the other family is no change to what is planned.
    assert_eq!(agent.slice("web-2", "web", json!({"addressType": "IPv6", "endpoints": []})).changes, []);

    let outcome = agent.apply(Change::SliceGone(ObjectName::new("ns", "web-1")));
    assert_eq!(outcome.changes[0].plan.as_ref().expect("a plan").endpoints, []);
    let outcome = agent.apply(Change::ServiceGone(ObjectName::new("ns", "web")));
    assert_eq!(outcome.changes.len(), 1);
    assert_eq!(outcome.changes[0].plan, None);
    assert_eq!(agent.planner.plans().count(), 0);
}

#[test]
fn a_slice_that_moves_leaves_nothing_behind() {
    let mut agent = agent();
    for (name, address) in [("a", "10.96.0.1"), ("b", "10.96.0.2")] {
        agent.service(name, json!({"clusterIP": address, "ports": HTTP()}));
    }
    let endpoints = json!({"endpoints": [{"addresses": ["10.0.0.1"]}]});
    agent.slice("s", "a", endpoints.clone());
    let outcome = agent.slice("s", "b", endpoints);
    let counts: Vec<_> = outcome
        .changes
        .iter()
        .map(|change| (&*change.id.service.name, change.plan.as_ref().expect("a plan").endpoints.len()))
        .collect();
    assert_eq!(counts, [("a", 0), ("b", 1)]);
}

#[test]
fn a_new_zone_or_address_of_the_node_plans_everything_again() {
    let mut agent = agent();
    agent.service(
        "web",
        json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
    );
    let hint = |zone| json!({"forZones": [{"name": zone}]});
    let endpoints = json!([
        {"addresses": ["10.0.0.1"], "hints": hint("a")}, {"addresses": ["10.0.0.2"], "hints": hint("b")}
    ]);
    agent.slice("web-1", "web", json!({"endpoints": endpoints}));
    let count =
        |agent: &Agent| agent.plan("web", Family::V4).expect("a plan").list(EndpointList::Cluster).count();
    assert_eq!(count(&agent), 2);
    let node = crate::state::Node { zone: Some("a".into()), ..Default::default() };
    agent.apply(Change::Node(Some(node)));
    assert_eq!(count(&agent), 1);
    agent.node(&["172.18.0.2"]);
    assert_eq!(count(&agent), 2);
    assert_eq!(
        agent.frontends("web", Family::V4),
        ["ClusterIp 10.96.0.1:80", "NodePort 127.0.0.1:30080", "NodePort 172.18.0.2:30080"]
    );
}

#[test]
fn node_ports_that_no_address_serves_are_reported_once_the_node_is_known() {
    let mut agent = Agent::new(NodePortAddresses::Primary);
    let ports = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
    let spec = json!({
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"], "ipFamilies": ["IPv4", "IPv6"],
        "ports": ports,
    });
    assert_eq!(messages(&agent.service("web", spec.clone())), [] as [&str; 0]);
    let said = messages(&agent.node(&["172.18.0.2", "172.18.0.3"]));
    assert!(
        matches!(&*said, [one] if one.starts_with("Node: ") && one.contains("IPv6 node ports")),
        "{said:?}"
    );
    assert_eq!(agent.frontends("web", Family::V4), ["ClusterIp 10.96.0.1:80", "NodePort 172.18.0.2:30080"]);
    // Fails closed.
    assert_eq!(agent.frontends("web", Family::V6), ["ClusterIp [fd00:96::1]:80"]);
    assert_eq!(
        messages(&agent.service("web2", spec)).iter().filter(|said| said.starts_with("Node")).count(),
        0
    );
}

#[test]
fn problems_are_reported_when_they_appear() {
    let mut agent = agent();
    let bad = json!({"clusterIP": "10.96.0.1", "externalIPs": ["bad"], "ports": HTTP()});
    let said = messages(&agent.service("web", bad.clone()));
    assert_eq!(said, ["Service ns/web: spec.externalIPs[0] \"bad\" is not an IP address: it is skipped"]);
    let said = messages(&agent.slice("web-1", "web", json!({"endpoints": [{"addresses": ["bad"]}]})));
    let of_slice =
        "EndpointSlice ns/web-1: endpoints[0].addresses[0] \"bad\" is not an IP address: it is skipped";
    assert_eq!(said, [of_slice]);
    // Neither of them again while it stays.
    assert_eq!(messages(&agent.slice("web-2", "web", json!({"endpoints": []}))), [] as [&str; 0]);
    // Again after it had gone.
    agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": HTTP()}));
    assert_eq!(messages(&agent.service("web", bad)).len(), 1);
    // Of a slice that waits for its Service too.
    let said = messages(&agent.slice("s", "later", json!({"endpoints": [{"addresses": []}]})));
    assert_eq!(said, ["EndpointSlice ns/s: endpoints[0].addresses is empty: the endpoint is skipped"]);
}

#[test]
fn protocols_do_not_meet() {
    let mut agent = agent();
    let ports = json!([{"name": "http", "port": 53}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let outcome = agent.service("web", json!({"clusterIP": "10.96.0.1", "ports": ports}));
    assert_eq!(outcome.problems, []);
    let frontends: Vec<_> = outcome
        .changes
        .iter()
        .map(|change| (change.id.protocol, change.plan.as_ref().expect("a plan").frontends.len()))
        .collect();
    assert_eq!(frontends, [(Protocol::Udp, 1), (Protocol::Tcp, 1)]);
}

#[test]
fn affinity_and_policy_are_in_the_plan() {
    let mut agent = agent();
    agent.service(
        "web",
        json!({
            "clusterIP": "10.96.0.1", "ports": HTTP(), "sessionAffinity": "ClientIP",
            "internalTrafficPolicy": "Local",
        }),
    );
    let plan = agent.plan("web", Family::V4).expect("a plan");
    assert_eq!(plan.affinity_seconds, Some(10_800));
    assert!(plan.internal_local && !plan.external_local && !plan.has_any);
}
