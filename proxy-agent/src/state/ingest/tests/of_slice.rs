use super::*;
use crate::state::{AddressType, Endpoint, EndpointSlice};

fn slice(mut more: Value) -> EndpointSlice {
    let fields = more.as_object_mut().expect("an object");
    fields.entry("metadata").or_insert(json!({"name": "web-1", "namespace": "ns"}));
    fields.entry("addressType").or_insert(json!("IPv4"));
    fields.entry("endpoints").or_insert(json!([]));
    Ingest::new("here").slice(&serde_json::from_value(more).expect("an EndpointSlice"))
}

fn endpoint(endpoint: Value) -> Endpoint {
    let slice = slice(json!({"endpoints": [endpoint]}));
    assert_eq!(slice.problems, [] as [String; 0]);
    let [endpoint] = &*slice.endpoints else { panic!("one endpoint, not {:?}", slice.endpoints) };
    endpoint.clone()
}

#[test]
fn the_service_of_a_slice_is_its_label() {
    for (labels, expected) in [
        (json!({"kubernetes.io/service-name": "web"}), Some("web")),
        (json!({"kubernetes.io/service-name": ""}), None),
        (json!({"app": "web"}), None),
        (json!(null), None),
    ] {
        let metadata = json!({
            "name": "s", "labels": labels,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "owner", "uid": "1"}],
        });
        let slice = slice(json!({"metadata": metadata}));
        assert_eq!(slice.service.as_deref(), expected, "{labels}");
        assert_eq!(slice.name, ObjectName::new("default", "s"));
    }
}

#[test]
fn address_types() {
    for (text, expected, parts) in [
        ("IPv4", AddressType::V4, &[][..]),
        ("IPv6", AddressType::V6, &[]),
        ("FQDN", AddressType::Other, &["addressType \"FQDN\""]),
        ("ipv4", AddressType::Other, &["addressType \"ipv4\""]),
        ("", AddressType::Other, &["addressType \"\""]),
    ] {
        let slice = slice(json!({"addressType": text, "ports": [{"name": "", "port": 1}]}));
        assert_eq!(slice.address_type, expected, "{text}");
        assert_eq!(slice.ports.is_empty(), expected == AddressType::Other, "{text}");
        assert_problems(&slice.problems, parts);
    }
}

#[test]
fn slice_ports() {
    let slice = slice(json!({"ports": [
        {"name": "", "port": 80},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": null, "port": 80},
        {"name": "all"},
        {"name": "zero", "port": 0},
        {"name": "high", "port": 65536},
        {"name": "icmp", "port": 1, "protocol": "ICMP"},
    ]}));
    let ports: Vec<_> = slice.ports.iter().map(|port| (&*port.name, port.protocol, port.port)).collect();
    assert_eq!(ports, [("", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)]);
    assert_problems(
        &slice.problems,
        &[
            "ports[2].name is not set",
            "ports[3].port is not set",
            "ports[4].port 0 ",
            "ports[5].port 65536 ",
            "ports[6].protocol \"ICMP\"",
        ],
    );
}

#[test]
fn endpoint_addresses() {
    let slice = slice(json!({"endpoints": [
        {"addresses": ["10.0.0.1", "10.0.0.2"]},
        {"addresses": ["010.0.0.03"]},
        {"addresses": []},
        {"addresses": ["bad", "10.0.0.4"]},
        {"addresses": ["fd00::1"]},
        {"addresses": ["0.0.0.0"]},
    ]}));
    let addresses: Vec<IpAddr> = slice.endpoints.iter().map(|endpoint| endpoint.address).collect();
    assert_eq!(addresses, ips(&["10.0.0.1", "10.0.0.3"]));
    assert_problems(
        &slice.problems,
        &[
            "endpoints[2].addresses is empty",
            "endpoints[3].addresses[0] \"bad\"",
            "endpoints[4].addresses[0] \"fd00::1\" is not of addressType IPv4",
            "endpoints[5].addresses[0] 0.0.0.0",
        ],
    );
}

#[test]
fn conditions_that_are_not_set() {
    for (conditions, expected) in [
        (json!(null), (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": false}), (false, true, false)),
        (json!({"serving": false}), (true, false, false)),
        (json!({"terminating": true}), (true, true, true)),
        (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
        (json!({"ready": false, "serving": false, "terminating": false}), (false, false, false)),
    ] {
        let endpoint = endpoint(json!({"addresses": ["10.0.0.1"], "conditions": conditions}));
        assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), expected, "{conditions}");
    }
}

#[test]
fn local_is_by_node_name() {
    for (node, expected) in
        [(json!("here"), true), (json!("there"), false), (json!(""), false), (json!(null), false)]
    {
        let endpoint = endpoint(json!({"addresses": ["10.0.0.1"], "nodeName": node}));
        assert_eq!(endpoint.local, expected, "{node}");
    }
    // An agent without a name must not take endpoints without a node for its own.
    let object = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [
        {"addresses": ["10.0.0.1"], "nodeName": ""}
    ]});
    let slice = Ingest::new("").slice(&serde_json::from_value(object).expect("an EndpointSlice"));
    assert!(!slice.endpoints[0].local);
}

#[test]
fn hints_are_sets_of_names() {
    for (hints, expected) in [
        (json!(null), None),
        (json!({}), None),
        (json!({"forZones": []}), None),
        (
            json!({"forZones": [{"name": "b"}, {"name": "a"}, {"name": "b"}]}),
            Some((vec!["a", "b"], false, false)),
        ),
        (json!({"forNodes": [{"name": "there"}]}), Some((vec![], true, false))),
        (
            json!({"forNodes": [{"name": "there"}, {"name": "here"}], "forZones": [{"name": "a"}]}),
            Some((vec!["a"], true, true)),
        ),
    ] {
        // The zone of the endpoint is not a hint.
        let endpoint = endpoint(json!({"addresses": ["10.0.0.1"], "hints": hints, "zone": "z"}));
        let found = endpoint.hints.as_ref().map(|hints| {
            (hints.zones.iter().map(|zone| &**zone).collect::<Vec<_>>(), hints.has_nodes, hints.this_node)
        });
        assert_eq!(found, expected, "{hints}");
    }
}

#[test]
fn trigger_time() {
    for (text, expected, parts) in [
        ("2026-01-02T03:04:05.123456789Z", Some("2026-01-02T03:04:05.123456789Z"), &[][..]),
        ("yesterday", None, &["last-change-trigger-time \"yesterday\""]),
    ] {
        let slice = slice(json!({"metadata": {
            "name": "s", "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": text}
        }}));
        assert_eq!(slice.triggered, expected.map(|text| text.parse().expect("a time")));
        assert_problems(&slice.problems, parts);
    }
}

#[test]
fn shared_names_and_hints_are_held_once() {
    let mut ingest = Ingest::new("here");
    let object = json!({
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}]}},
            {"addresses": ["10.0.0.2"], "hints": {"forZones": [{"name": "a"}]}},
        ],
    });
    let object = serde_json::from_value(object).expect("an EndpointSlice");
    let (first, second) = (ingest.slice(&object), ingest.slice(&object));
    assert!(Arc::ptr_eq(&first.name.namespace, &second.name.namespace));
    assert!(Arc::ptr_eq(&first.ports[0].name, &second.ports[0].name));
    let hints = |slice: &EndpointSlice, index: usize| {
        Arc::clone(slice.endpoints[index].hints.as_ref().expect("hints"))
    };
    assert!(Arc::ptr_eq(&hints(&first, 0), &hints(&second, 1)));
    // 250,000 of them are to fit into 8 MB.
    assert_eq!(size_of::<Endpoint>(), 32);
}
