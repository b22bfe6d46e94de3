use serde_json::{Value, json};

use super::*;
use crate::{
    plan::{Planner, PlannerConfig},
    state::{Change, Dirty, Ingest, Store},
};

fn document() -> Document {
    let service = json!({
        "metadata": {"name": "web", "namespace": "demo"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": ["198.51.100.0/24"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    let slice = json!({
        "metadata": {
            "name": "web-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": (5..11).map(|last| json!({"addresses": [format!("10.244.0.{last}")]})).collect::<Vec<_>>(),
    });
    let node = json!({
        "metadata": {"name": "here"}, "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]}
    });
    let mut ingest = Ingest::new("here");
    let mut store = Store::default();
    store.apply(Change::Service(ingest.service(&serde_json::from_value(service).expect("a Service"))));
    store.apply(Change::Slice(ingest.slice(&serde_json::from_value(slice).expect("an EndpointSlice"))));
    store.apply(Change::Node(Some(ingest.node(&serde_json::from_value(node).expect("a Node")))));
    let mut planner = Planner::new(PlannerConfig::default());
    planner.plan(&store, &Dirty::everything());
    Document::new(planner.plans())
}

#[test]
fn json_has_the_fields_of_its_description() {
    let mut printed = Vec::new();
    document().print_json(&mut printed).expect("printed");
    let printed: Value = serde_json::from_slice(&printed).expect("JSON");
    let frontends = printed["frontends"].as_array().expect("a list");
    let kinds: Vec<&str> =
        frontends.iter().map(|frontend| frontend["kind"].as_str().expect("a text")).collect();
    assert_eq!(kinds, ["ClusterIP", "LoadBalancer", "NodePort", "NodePort"]);
    assert_eq!(
        frontends[0],
        json!({
            "service": "demo/web", "portName": "http", "kind": "ClusterIP", "address": "10.96.0.1", "port": 80,
            "protocol": "TCP", "internal": [], "external": null,
            "whenEmpty": {"internal": "drop", "external": null}, "affinitySeconds": 10800, "sourceRanges": [],
        })
    );
    let balancer = &frontends[1];
    assert_eq!(
        balancer["internal"][1],
        json!({"address": "10.244.0.5", "port": 8080, "local": false, "terminating": false})
    );
    assert_eq!(balancer["internal"].as_array().map(Vec::len), Some(6));
    assert_eq!(balancer["external"], json!([]));
    assert_eq!(balancer["whenEmpty"], json!({"internal": "reject", "external": "drop"}));
    assert_eq!(balancer["sourceRanges"], json!(["198.51.100.0/24"]));
    for (frontend, address) in frontends[2..].iter().zip(["127.0.0.1", "172.18.0.2"]) {
        assert_eq!((&frontend["address"], &frontend["port"]), (&json!(address), &json!(30080)));
    }
}

#[test]
fn table() {
    let mut printed = Vec::new();
    document().print_table(&mut printed).expect("printed");
    let printed = String::from_utf8(printed).expect("text");
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["SERVICE", "KIND", "FRONTEND", "INTERNAL", "EXTERNAL", "OPTIONS"]);
    assert_eq!(lines[1], ["demo/web:http", "ClusterIP", "10.96.0.1:80/TCP", "drop", "affinity", "10800s"]);
    let shown = "10.244.0.10:8080,10.244.0.5:8080,10.244.0.6:8080,10.244.0.7:8080,+2";
    assert_eq!(lines[2][3..5], [shown, "drop"]);
    assert_eq!(lines[2][7..], ["from", "198.51.100.0/24"]);
}

#[test]
fn nothing_is_an_empty_list() {
    let empty = Document::new(std::iter::empty());
    let mut printed = Vec::new();
    empty.print_json(&mut printed).expect("printed");
    assert_eq!(serde_json::from_slice::<Value>(&printed).expect("JSON"), json!({"frontends": []}));
}
