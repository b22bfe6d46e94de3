//! Rows of the tables in KUBE-PROXY.md 1.2 and 2.1.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;

use crate::state::Node;

mod of_service;
mod of_slice;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Exactly these problems, each told by a part of it.
fn assert_problems(problems: &[String], parts: &[&str]) {
    assert_eq!(problems.len(), parts.len(), "{problems:?} should be {parts:?}");
    for (problem, part) in problems.iter().zip(parts) {
        assert!(problem.contains(part), "{problem:?} should have {part:?}");
    }
}

#[test]
fn nodes() {
    let node = |object| Ingest::new("here").node(&serde_json::from_value(object).expect("a Node"));
    let found = node(json!({
        "metadata": {"name": "here", "labels": {"topology.kubernetes.io/zone": "a"}},
        "status": {"addresses": [
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "Hostname", "address": "here"},
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "bad"},
            {"type": "ExternalIP", "address": "192.0.2.1"},
        ]},
    }));
    assert_eq!(found.zone.as_deref(), Some("a"));
    assert_eq!(found.addresses, ips(&["192.0.2.1", "fd00::1", "203.0.113.1"]));
    assert_problems(&found.problems, &["status.addresses[4].address \"bad\""]);

    for (object, leaving) in [
        (
            json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}),
            true,
        ),
        (json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "Other"}]}}), true),
        (
            json!({"spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}),
            false,
        ),
        (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), true),
    ] {
        assert_eq!(node(object.clone()).leaving, leaving, "{object}");
    }

    let empty_zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": ""}}});
    for object in [empty_zone, json!({"metadata": {}})] {
        assert_eq!(node(object), Node::default());
    }
}
