//! Who may use load-balancer addresses: KUBE-PROXY.md 1.2 and 1.9.

use super::*;

/// A Service of both families with a load-balancer address of each.
fn limited(ranges: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "ipFamilies": ["IPv4", "IPv6"], "loadBalancerSourceRanges": ranges, "ports": HTTP(),
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8::2"}]}},
    })
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn source_ranges_by_family() {
    let all = ["10.0.0.0/8", "192.0.2.0/24", "fd00::/8"];
    for (ranges, v4, v6, warned) in [
        (json!(all), &["10.0.0.0/8", "192.0.2.0/24"][..], &["fd00::/8"][..], None),
        (json!(["10.0.0.0/8", "0.0.0.0/0", "fd00::/8"]), &[], &["fd00::/8"], None),
        (json!(["10.0.0.0/8"]), &["10.0.0.0/8"], &[], Some("has no IPv6 range")),
        (json!(["fd00::/8"]), &[], &["fd00::/8"], Some("has no IPv4 range")),
        (json!([]), &[], &[], None),
    ] {
        let mut agent = agent();
        let outcome = agent.service_with(limited(&ranges));
        for (family, expected) in [(Family::V4, v4), (Family::V6, v6)] {
            let plan = agent.plan("web", family).expect("a plan");
            assert_eq!(texts(&plan.source_ranges), expected, "{ranges} {family:?}");
            assert_eq!(texts(&plan.allowed_sources()), expected, "{ranges} {family:?}");
        }
        let messages = messages(&outcome);
        assert_eq!(messages.len(), usize::from(warned.is_some()), "{messages:?}");
        assert!(messages.iter().zip(warned).all(|(message, part)| message.contains(part)), "{messages:?}");
    }
}

#[test]
fn a_node_inside_the_ranges_may_use_the_services_own_addresses_as_its_source() {
    let ranges = json!(["10.0.0.0/8", "172.18.0.0/16", "fd00:18::/64"]);
    for (what, node, v4, v6) in [
        ("both inside", &["172.18.0.2", "fd00:18::2"][..], &["203.0.113.1"][..], &["2001:db8::2"][..]),
        ("one inside", &["172.18.0.2", "fd00:19::2"], &["203.0.113.1"], &[]),
        ("only the first address counts", &["192.0.2.1", "172.18.0.2"], &[], &[]),
        ("none inside", &["192.0.2.1", "fd00:19::2"], &[], &[]),
        ("no Node", &[], &[], &[]),
    ] {
        let mut agent = agent();
        // Addresses on links play no part.
        agent.local_addresses(&["10.0.0.1"]);
        agent.node(node);
        agent.service_with(limited(&ranges));
        for (family, expected) in [(Family::V4, v4), (Family::V6, v6)] {
            let plan = agent.plan("web", family).expect("a plan");
            assert_eq!(texts(&plan.exempt_sources), expected, "{what}");
            assert_eq!(plan.source_ranges.len(), if family == Family::V4 { 2 } else { 1 }, "{what}");
        }
    }
    // It follows the Node.
    let mut agent = agent();
    agent.service_with(limited(&ranges));
    assert_eq!(agent.node(&["172.18.0.2"]).changes.len(), 1);
    let plan = agent.plan("web", Family::V4).expect("a plan");
    assert_eq!(texts(&plan.allowed_sources()), ["10.0.0.0/8", "172.18.0.0/16", "203.0.113.1/32"]);
    assert_eq!(agent.node(&["192.0.2.1"]).changes.len(), 1);
    assert_eq!(agent.plan("web", Family::V4).expect("a plan").exempt_sources, [] as [IpAddr; 0]);
}

#[test]
fn without_ranges_nobody_needs_an_exemption() {
    let mut agent = agent();
    agent.node(&["172.18.0.2"]);
    for ranges in [json!([]), json!(["0.0.0.0/0"]), json!(["fd00::/8"])] {
        agent.service_with(limited(&ranges));
        let plan = agent.plan("web", Family::V4).expect("a plan");
        assert_eq!((plan.exempt_sources.len(), plan.allowed_sources().len()), (0, 0), "{ranges}");
    }
}

#[test]
fn an_exempt_address_inside_the_ranges_is_there_once() {
    let mut agent = agent();
    agent.node(&["172.18.0.2"]);
    agent.service_with(limited(&json!(["172.18.0.0/16", "203.0.113.1/32"])));
    let plan = agent.plan("web", Family::V4).expect("a plan");
    assert_eq!(texts(&plan.allowed_sources()), ["172.18.0.0/16", "203.0.113.1/32"]);
}
