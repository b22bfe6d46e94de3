use super::*;
use crate::state::Service;

fn service(spec: Value, status: Value) -> Service {
    let object = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec, "status": status});
    Ingest::new("here").service(&serde_json::from_value(object).expect("a Service"))
}

/// A Service with a cluster IP and what `more` says.
fn spec(more: Value) -> Service {
    let mut spec = json!({"clusterIP": "10.96.0.1"});
    let (Value::Object(spec_fields), Value::Object(more)) = (&mut spec, more) else { panic!("an object") };
    spec_fields.extend(more);
    service(spec, json!({}))
}

#[test]
fn names_and_age() {
    let service = Ingest::new("here").service(
        &serde_json::from_value(json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-02T03:04:05Z"}
        }))
        .expect("a Service"),
    );
    assert_eq!(service.name, ObjectName::new("default", "web"));
    assert_eq!(service.created, Some("2026-01-02T03:04:05Z".parse().expect("a time")));
    assert_eq!(service.cluster_ips, [] as [IpAddr; 0]);
}

#[test]
fn what_has_no_cluster_ip_is_not_served() {
    for (spec, parts) in [
        (json!({"clusterIP": "None"}), &[][..]),
        (json!({"clusterIP": "None", "externalIPs": ["bad"]}), &[]),
        (json!({"type": "ExternalName", "externalName": "example.org"}), &[]),
        (json!({"type": "ExternalName", "clusterIP": "10.96.0.1"}), &[]),
        (json!({"clusterIP": ""}), &["spec.clusterIP is not set"]),
        (json!({}), &["spec.clusterIP is not set"]),
        (json!({"clusterIP": "10.96.0"}), &["spec.clusterIP \"10.96.0\" is not an IP address"]),
        (json!({"clusterIP": "0.0.0.0"}), &["spec.clusterIP 0.0.0.0 is not the address of one host"]),
    ] {
        let service = service(spec.clone(), json!({}));
        assert_eq!(service.cluster_ips, [] as [IpAddr; 0], "{spec}");
        assert_problems(&service.problems, parts);
    }
}

#[test]
fn the_cluster_ip_of_each_family() {
    let rows: &[(Value, &[&str], &[&str])] = &[
        (json!({"clusterIP": "10.96.0.1"}), &["10.96.0.1"], &[]),
        (json!({"clusterIP": "fd00::1"}), &["fd00::1"], &[]),
        (json!({"clusterIP": "010.096.0.1"}), &["10.96.0.1"], &[]),
        (
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.96.0.1"], "ipFamilies": ["IPv6", "IPv4"]}),
            &["fd00::1", "10.96.0.1"],
            &[],
        ),
        (
            // Without families, clusterIP alone counts.
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}),
            &["10.96.0.1"],
            &["spec.ipFamilies is empty"],
        ),
        (
            json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.1", "fd00::1"]}),
            &["10.96.0.1"],
            &[],
        ),
        (json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"]}), &["10.96.0.1"], &[]),
        (
            json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.96.0.1"]}),
            &["10.96.0.1"],
            &["no entry for spec.ipFamilies[1] IPv6"],
        ),
        (
            json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv6"], "clusterIPs": ["10.96.0.1"]}),
            &[],
            &["spec.clusterIPs[0] \"10.96.0.1\" is not of spec.ipFamilies[0] IPv6"],
        ),
        (
            json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv5"], "clusterIPs": ["10.96.0.1"]}),
            &[],
            &["spec.ipFamilies[0] \"IPv5\""],
        ),
    ];
    for (spec, expected, parts) in rows {
        let service = service(spec.clone(), json!({}));
        assert_eq!(service.cluster_ips, ips(expected), "{spec}");
        assert_problems(&service.problems, parts);
    }
}

#[test]
fn external_ips_that_can_be_read() {
    let service = spec(json!({"externalIPs": ["010.0.0.1", "", " ", "bad", "fd00::9", "224.0.0.1"]}));
    assert_eq!(service.external_ips, ips(&["10.0.0.1", "fd00::9"]));
    assert_problems(
        &service.problems,
        &[
            "spec.externalIPs[1] \"\"",
            "spec.externalIPs[2] \" \"",
            "spec.externalIPs[3] \"bad\"",
            "spec.externalIPs[5] 224.0.0.1",
        ],
    );
}

#[test]
fn load_balancer_addresses_in_mode_vip() {
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1"},
        {"ip": "203.0.113.2", "ipMode": "VIP"},
        {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.org"},
        {"ip": "2001:db8::1"},
        {"ip": "bad"},
        {"ip": "203.0.113.4", "ipMode": "Other"},
    ]}});
    // Whatever the type: a ClusterIP Service may have a status left over.
    let service = service(json!({"clusterIP": "10.96.0.1", "type": "ClusterIP"}), status);
    assert_eq!(service.load_balancer_ips, ips(&["203.0.113.1", "203.0.113.2", "2001:db8::1"]));
    assert_problems(&service.problems, &["ingress[5].ip \"bad\"", "ingress[6].ipMode \"Other\""]);
}

#[test]
fn source_ranges_are_trimmed_and_masked() {
    let service = spec(json!({"loadBalancerSourceRanges": [" 10.1.2.3/8\t", "fd00::1/64", "10.0.0.1", "x"]}));
    let ranges: Vec<String> = service.source_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "fd00::/64"]);
    assert_problems(&service.problems, &["Ranges[2] \"10.0.0.1\"", "Ranges[3] \"x\""]);
}

#[test]
fn source_ranges_that_all_fail_leave_it_open_and_say_so() {
    let service = spec(json!({"loadBalancerSourceRanges": ["x"]}));
    assert!(service.source_ranges.is_empty());
    assert_problems(&service.problems, &["Ranges[0] \"x\"", "open to every client"]);
}

#[test]
fn ports() {
    let service = spec(json!({"ports": [
        {"port": 80},
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053, "targetPort": "x", "appProtocol": "y"},
        {"name": "sctp", "port": 65535, "protocol": "SCTP", "nodePort": 0},
        {"name": "zero", "port": 0},
        {"name": "high", "port": 65536},
        {"name": "low", "port": -1},
        {"name": "icmp", "port": 1, "protocol": "ICMP"},
        {"name": "lower", "port": 1, "protocol": "tcp"},
        {"name": "np", "port": 81, "nodePort": 70000},
    ]}));
    let ports: Vec<_> =
        service.ports.iter().map(|port| (&*port.name, port.protocol, port.port, port.node_port)).collect();
    assert_eq!(
        ports,
        [
            ("", Protocol::Tcp, 80, None),
            ("dns", Protocol::Udp, 53, Some(30053)),
            ("sctp", Protocol::Sctp, 65535, None),
            ("np", Protocol::Tcp, 81, None),
        ]
    );
    assert_problems(
        &service.problems,
        &[
            "spec.ports[3].port 0 ",
            "spec.ports[4].port 65536 ",
            "spec.ports[5].port -1 ",
            "spec.ports[6].protocol \"ICMP\"",
            "spec.ports[7].protocol \"tcp\"",
            "spec.ports[8].nodePort 70000",
        ],
    );
}

#[test]
fn internal_policy() {
    for (policy, expected, parts) in [
        (json!(null), false, &[][..]),
        (json!("Cluster"), false, &[]),
        (json!("Local"), true, &[]),
        (json!("local"), false, &["spec.internalTrafficPolicy \"local\""]),
    ] {
        let service = spec(json!({"internalTrafficPolicy": policy}));
        assert_eq!(service.internal_local, expected, "{policy}");
        assert_problems(&service.problems, parts);
    }
}

#[test]
fn external_policy_counts_by_type() {
    for (kind, external_ips, expected) in [
        (json!("NodePort"), json!([]), true),
        (json!("LoadBalancer"), json!([]), true),
        (json!("ClusterIP"), json!([]), false),
        (json!(null), json!([]), false),
        (json!("ClusterIP"), json!(["192.0.2.1"]), true),
        (json!(null), json!(["192.0.2.1"]), true),
        // Of the other family all the same (trap 2).
        (json!("ClusterIP"), json!(["fd00::9"]), true),
    ] {
        for policy in ["Local", "Cluster"] {
            let service = spec(json!({
                "type": kind, "externalIPs": external_ips, "externalTrafficPolicy": policy
            }));
            assert_eq!(
                service.external_local,
                expected && policy == "Local",
                "{kind} {external_ips} {policy}"
            );
            assert_problems(&service.problems, &[]);
        }
    }
    let service = spec(json!({"type": "Mesh", "externalTrafficPolicy": "Local"}));
    assert!(!service.external_local);
    assert_problems(&service.problems, &["spec.type \"Mesh\""]);
}

#[test]
fn affinity() {
    let config = |seconds: Value| json!({"clientIP": {"timeoutSeconds": seconds}});
    for (affinity, config, expected, parts) in [
        (json!(null), json!(null), None, &[][..]),
        (json!("None"), config(json!(5)), None, &[]),
        (json!("ClientIP"), json!(null), Some(10_800), &[]),
        (json!("ClientIP"), config(json!(null)), Some(10_800), &[]),
        (json!("ClientIP"), config(json!(1)), Some(1), &[]),
        (json!("ClientIP"), config(json!(86_400)), Some(86_400), &[]),
        (json!("ClientIP"), config(json!(0)), Some(10_800), &["timeoutSeconds 0 "]),
        (json!("ClientIP"), config(json!(86_401)), Some(10_800), &["timeoutSeconds 86401 "]),
        (json!("ClientIP"), config(json!(-1)), Some(10_800), &["timeoutSeconds -1 "]),
        (json!("Cookie"), json!(null), None, &["spec.sessionAffinity \"Cookie\""]),
    ] {
        let service = spec(json!({"sessionAffinity": affinity, "sessionAffinityConfig": config}));
        assert_eq!(service.affinity_seconds, expected, "{affinity} {config}");
        assert_problems(&service.problems, parts);
    }
}
