//! What people see of the maps: frontends, endpoints, fields by name, counters.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde_json::{Value, json};
use xtask::lab::{
    TcpSession, UdpSession, Via, ask, available,
    objects::{endpoint, slice},
};

use crate::{
    helpers::{
        Ips, PATIENCE, backends, bpftool, endpoints, frontends, names, pins, services, try_bpftool,
        until_programmed, web,
    },
    scene::Scene,
    world::{From, agent_binary, answers, cluster_ips, eventually, until_answered_by, until_refused},
};

/// A Service of policy Local whose only endpoint is on another node.
fn elsewhere(name: &str, ips: Ips) -> [Value; 2] {
    let [mut service, ..] = web(name, ips, &[]);
    service["spec"]["internalTrafficPolicy"] = json!("Local");
    let remote = endpoint(Ipv4Addr::new(10, 244, 9, 9)).on("node-b");
    let slice = slice("default", name, name).port("tcp", "TCP", 8080).port("udp", "UDP", 8080);
    [service, slice.endpoint(remote).build()]
}

#[test]
fn the_maps_hold_what_is_planned() {
    if !available() {
        return;
    }
    let scene = Scene::new("inspect", From::Manifests, 3);
    let (one, two, empty) = (cluster_ips(), cluster_ips(), cluster_ips());
    let [mut affine, slices @ ..] = web("one", one, &scene.all());
    affine["spec"]["sessionAffinity"] = json!("ClientIP");
    affine["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 77}});
    scene.world.apply(&[affine]);
    scene.world.apply(&slices);
    scene.world.apply(&web("two", two, &[&scene.pods[1]]));
    scene.world.apply(&elsewhere("empty", empty));
    let mut outside = web("outside", cluster_ips(), &[&scene.pods[0]]);
    outside[0]["spec"]["externalIPs"] = json!(["192.0.2.1"]);
    outside[0]["spec"]["loadBalancerSourceRanges"] = json!(["198.51.100.0/24", "2001:db8::/32"]);
    outside[0]["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    scene.world.apply(&outside);
    until_programmed(&scene.world, "node-a", (one.0, 80).into(), &scene.all());
    scene.until(two, "web-2");
    scene.until_all_is_seen();

    let folder = scene.world.manifests().path().to_str().unwrap();
    let arguments = ["plan", "--manifests", folder, "--node-name", "node-a", "-o", "json"];
    let plan: Value = serde_json::from_str(&crate::helpers::cli(&scene.world, "node-a", &arguments)).unwrap();
    let outside = |frontend: &Value| match frontend["external"].as_array() {
        Some(external) => external.iter().map(|endpoint| endpoint["address"].to_string()).collect(),
        None => "nobody".to_owned(),
    };
    // They differ only where one knows more: the plan what is local and terminating, the maps the ids.
    type View = (String, String, String, BTreeSet<String>, String, String, String);
    let view = |frontend: &Value| -> View {
        let text = |field: &str| frontend[field].as_str().unwrap_or_else(|| panic!("{frontend}")).to_owned();
        let ip: IpAddr = text("address").parse().unwrap();
        let port = u16::try_from(frontend["port"].as_u64().unwrap()).unwrap();
        let at = format!("{}/{}", SocketAddr::new(ip, port), text("protocol"));
        (
            format!("{}:{}", text("service"), text("portName")),
            text("kind"),
            at,
            endpoints(frontend),
            frontend["whenEmpty"].to_string(),
            frontend["affinitySeconds"].to_string(),
            format!("{} from {}", outside(frontend), frontend["sourceRanges"]),
        )
    };
    let planned: BTreeSet<View> = plan["frontends"].as_array().unwrap().iter().map(view).collect();
    let kinds = planned.iter().filter(|view| view.1 != "ClusterIP").count();
    assert_eq!(kinds, 4, "{planned:?}");
    let programmed: BTreeSet<View> = frontends(&scene.world, "node-a").iter().map(view).collect();
    assert_eq!(programmed, planned);
    assert!(programmed.iter().any(|view| view.6.ends_with("[\"198.51.100.0/24\"]")), "{programmed:?}");
    assert!(programmed.iter().any(|view| view.5 == "77" && view.3.len() == 3), "{programmed:?}");
    assert!(programmed.iter().any(|view| view.4.contains("drop") && view.3.is_empty()), "{programmed:?}");

    let wanted: BTreeSet<String> = planned
        .iter()
        .flat_map(|view| view.3.iter().map(|endpoint| format!("{} {endpoint}", view.0)))
        .collect();
    let held: BTreeSet<String> = backends(&scene.world, "node-a")
        .iter()
        // A UDP endpoint that no list has keeps its flows.
        .filter(|backend| backend["protocol"] != "UDP" || backend["lists"] != json!([]))
        .map(|backend| {
            let text =
                |field: &str| backend[field].as_str().unwrap_or_else(|| panic!("{backend}")).to_owned();
            let port = u16::try_from(backend["port"].as_u64().unwrap()).unwrap();
            let at = SocketAddr::new(text("address").parse().unwrap(), port);
            assert_eq!(backend["lists"][0], "cluster", "{backend}");
            format!("{}:{} {at}", text("service"), text("portName"))
        })
        .collect();
    assert_eq!(held, wanted);

    // The tables are for people: that they name everything is enough.
    let text = crate::helpers::cli(&scene.world, "node-a", &["services"]);
    for word in ["default/one", "default/empty", &one.0.to_string(), &one.1.to_string()] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    let text = crate::helpers::cli(&scene.world, "node-a", &["backends"]);
    for pod in &scene.pods {
        assert!(text.contains(&pod.addresses().v4.to_string()), "{} is missing:\n{text}", pod.name());
    }
}

#[test]
fn bpftool_prints_every_map_by_field_names() {
    if !available() {
        return;
    }
    // Small, as bpftool prints every entry of an array.
    let scene = Scene::with("bpftool", From::Manifests, 2, |spec| {
        let flags = ["--max-frontends", "--max-backends", "--max-slots", "--max-services"];
        flags.into_iter().fold(spec, |spec, flag| spec.arg(flag).arg("64"))
    });
    let ips = cluster_ips();
    let [mut service, slices @ ..] = web("web", ips, &scene.all());
    service["spec"]["sessionAffinity"] = json!("ClientIP");
    // So that there are source ranges.
    service["spec"]["type"] = json!("LoadBalancer");
    service["spec"]["loadBalancerSourceRanges"] = json!(["192.0.2.0/24", "2001:db8::/32"]);
    service["status"]["loadBalancer"]["ingress"] =
        json!([{ "ip": "203.0.113.9" }, { "ip": "2001:db8:9::9" }]);
    scene.world.apply(&[service]);
    scene.world.apply(&slices);
    for pod in [ips.0.into(), ips.1.into()] {
        until_programmed(&scene.world, "node-a", SocketAddr::new(pod, 80), &scene.all());
        answers(&scene.client, Via::Tcp, SocketAddr::new(pod, 80), 1);
    }
    let node = scene.node();
    let folder = node.bpffs().join(pins(&node, "maps-"));
    let formatted = |map: &str| -> Vec<Value> {
        let path = folder.join(map);
        let dump = bpftool(&node, &["map".as_ref(), "dump".as_ref(), "pinned".as_ref(), path.as_os_str()]);
        let entries = dump.as_array().unwrap_or_else(|| panic!("{map}: {dump}")).clone();
        assert!(!entries.is_empty(), "{map} is empty");
        // Without types there is only a hex dump; a per-CPU map has one formatted value for each CPU.
        entries
            .into_iter()
            .map(|entry| match entry.get("formatted") {
                Some(formatted) => formatted.clone(),
                None => panic!("{map}: bpftool knows no names: {entry}"),
            })
            .collect()
    };
    let fields = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap_or_else(|| panic!("no struct: {value}")).keys().cloned().collect()
    };
    let has = |map: &str, value: &Value, wanted: &[&str]| {
        let found = fields(value);
        assert!(wanted.iter().all(|name| found.contains(*name)), "{map}: {wanted:?} in {found:?}");
    };
    let all = names(&node, &folder);
    let known: BTreeSet<String> = [
        "ADDRESS_FILTER",
        "AFFINITY4",
        "AFFINITY6",
        "BACKENDS4",
        "BACKENDS6",
        "BACKEND_LOAD4",
        "BACKEND_LOAD6",
        "COUNTERS",
        "FRONTENDS4",
        "FRONTENDS6",
        "ICMP_ERRORS",
        "LINKS",
        "ROUTE_REQUEST",
        "SERVICES",
        "SLOTS",
        "SOURCE_RANGES4",
        "SOURCE_RANGES6",
        "WORK4",
        "WORK6",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(all, known, "a map that this test does not know");
    for map in &all {
        let entries = formatted(map);
        let value = |entry: &Value| match entry.get("values") {
            Some(values) => values[0]["value"].clone(),
            None => entry["value"].clone(),
        };
        let first = value(&entries[0]);
        match map.as_str() {
            "FRONTENDS4" | "FRONTENDS6" => {
                has(map, &first, &["internal", "external", "service_port", "affinity_seconds", "kind"]);
                let key = entries.iter().map(|entry| &entry["key"]).find(|key| key["port"] == 80);
                let key = key.unwrap_or_else(|| panic!("{map}: no port 80 in {entries:?}"));
                has(map, key, &["address", "port", "protocol"]);
                let shown: Vec<_> =
                    entries.iter().map(|entry| entry["key"]["protocol"].to_string()).collect();
                for name in ["Tcp", "Udp", "Any"] {
                    assert!(shown.iter().any(|shown| shown.contains(name)), "{map}: {name} in {shown:?}");
                }
            }
            "BACKENDS4" | "BACKENDS6" => {
                has(map, &first, &["address", "port", "lists", "protocol", "generation", "service_port"]);
            }
            "BACKEND_LOAD4" | "BACKEND_LOAD6" => has(map, &first, &["active"]),
            "AFFINITY4" | "AFFINITY6" => {
                has(map, &entries[0]["key"], &["client", "service_port", "client_kind"]);
                has(map, &first, &["last_used", "backend", "generation"]);
                assert!(entries[0]["key"]["client_kind"].to_string().contains("NetworkNamespace"), "{first}");
            }
            "SERVICES" => has(map, &first, &["name", "protocol", "family"]),
            "SOURCE_RANGES4" | "SOURCE_RANGES6" => has(map, &entries[0]["key"], &["prefix_len", "data"]),
            "LINKS" => has(map, &first, &["address4", "address6", "role", "xdp"]),
            // What programs keep for themselves.
            "ICMP_ERRORS" | "ROUTE_REQUEST" | "WORK4" | "WORK6" => {
                assert!(first.is_object(), "{map}: {first}");
            }
            "COUNTERS" => has(map, &first, &["translated", "no_endpoint", "unknown_port", "affinity_hit"]),
            // Plain numbers.
            _ => assert!(first.is_u64() || first.is_string(), "{map}: {first}"),
        }
    }
    // Those of flows are empty here, but have their types.
    let flows = node.bpffs().join(pins(&node, "flows-"));
    for map in names(&node, &flows) {
        let path = flows.join(map);
        let show = bpftool(&node, &["map".as_ref(), "show".as_ref(), "pinned".as_ref(), path.as_os_str()]);
        assert!(show["btf_id"].is_u64(), "{show}");
    }
    // What belongs to sockets is out of bpftool's reach, but it knows what it is.
    let sockets = node.bpffs().join(pins(&node, "sockets-"));
    for map in ["SOCKETS", "SOCKET_PEERS"] {
        let path = sockets.join(map);
        let show = bpftool(&node, &["map".as_ref(), "show".as_ref(), "pinned".as_ref(), path.as_os_str()]);
        assert!(show["btf_id"].is_u64() && show["type"] == "sk_storage", "{show}");
        // Older ones fail, newer ones print nothing.
        let _either =
            try_bpftool(&node, &["map".as_ref(), "dump".as_ref(), "pinned".as_ref(), path.as_os_str()]);
    }
}

#[test]
fn counters_say_what_the_programs_decided() {
    if !available() {
        return;
    }
    let scene = Scene::new("counters", From::Api, 2);
    let (ips, empty, local) = (cluster_ips(), cluster_ips(), cluster_ips());
    scene.world.apply(&elsewhere("local", local));
    scene.world.apply(&web("empty", empty, &[]));
    scene.world.apply(&web("web", ips, &[&scene.pods[0]]));
    until_refused(&scene.client, Via::Tcp, (empty.0, 80).into());
    scene.until(ips, "web-1");
    until_programmed(&scene.world, "node-a", (local.0, 80).into(), &[]);
    let count = |name: &str| -> u64 {
        let services = services(&scene.world, "node-a");
        let counter = &services["counters"][name];
        counter.as_u64().unwrap_or_else(|| panic!("no counter {name} in {}", services["counters"]))
    };
    let ask_once = |via: Via, to: SocketAddr| drop(scene.client.run(|| ask(via, to)));
    let session = scene.client.run(|| UdpSession::open((ips.0, 80).into(), PATIENCE)).unwrap();
    let cases: [(&str, u64, &dyn Fn()); 5] = [
        ("translated", 3, &|| {
            for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
                ask_once(via, (ips.0, 80).into());
            }
        }),
        // Only the first datagram of a socket is one.
        ("translated", 1, &|| {
            for _ in 0..5 {
                session.ask_to(b"x", (ips.0, 80).into()).unwrap();
            }
        }),
        ("noEndpoint", 2, &|| {
            ask_once(Via::Tcp, (empty.0, 80).into());
            ask_once(Via::UdpConnected, (empty.1, 80).into());
        }),
        ("unknownPort", 2, &|| {
            ask_once(Via::Tcp, (ips.0, 81).into());
            ask_once(Via::Udp, (ips.1, 81).into());
        }),
        ("noLocalEndpoint", 2, &|| {
            ask_once(Via::Tcp, (local.0, 80).into());
            ask_once(Via::Udp, (local.0, 80).into());
        }),
    ];
    for (name, more, act) in cases {
        let before = count(name);
        act();
        assert_eq!(count(name) - before, more, "{name}");
    }
    let before = count("repicked");
    scene.world.apply(&web("web", ips, &[&scene.pods[1]])[1..]);
    until_programmed(&scene.world, "node-a", (ips.0, 80).into(), &[&scene.pods[1]]);
    for _ in 0..3 {
        assert_eq!(session.ask_to(b"x", (ips.0, 80).into()).unwrap().endpoint, "web-2");
    }
    assert_eq!(count("repicked") - before, 1);
    assert_eq!((count("badSlot"), count("noSocketStorage")), (0, 0));
}

#[test]
fn open_sockets_are_counted_where_that_was_asked_for() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("count", From::Manifests, 1);
    let ips = scene.served("web");
    let node = scene.node();
    let hooks = |scene: &Scene| {
        let mut all = names(&scene.node(), &scene.node().bpffs().join("links"));
        // Those of the packet path are on interfaces.
        all.retain(|name| !name.contains("-if"));
        all
    };
    assert!(!hooks(&scene).contains("sock_release"), "every socket pays for what nobody asked for");
    assert_eq!(hooks(&scene).len(), 8);

    scene.world.take_agent("node-a").terminate().unwrap();
    scene.world.start_otherwise("node-a", |spec| spec.arg("--count-connections"));
    scene.world.start_agent("node-a");
    assert!(hooks(&scene).contains("sock_release"));
    let active = |protocol: &str, ip: IpAddr| -> u64 {
        let backends = backends(&scene.world, "node-a");
        let is_it = |backend: &&Value| {
            let at = |ip: &Value| ip.as_str().unwrap().parse::<IpAddr>().unwrap().is_ipv4();
            backend["protocol"] == protocol && at(&backend["address"]) == ip.is_ipv4()
        };
        let found = backends.iter().find(is_it).unwrap_or_else(|| panic!("no {protocol} in {backends:?}"));
        found["active"].as_u64().unwrap_or_else(|| panic!("{found}"))
    };
    let until = |protocol: &str, ip: IpAddr, wanted: u64| {
        eventually(&format!("{wanted} open {protocol} sockets"), || match active(protocol, ip) {
            found if found == wanted => Ok(()),
            found => Err(found),
        });
    };
    for ip in [IpAddr::from(ips.0), ips.1.into()] {
        let to = SocketAddr::new(ip, 80);
        until_answered_by(&scene.client, Via::Tcp, to, "web-1");
        until("TCP", ip, 0);
        until("UDP", ip, 0);
        let mut tcp = Vec::new();
        for open in 1..=3 {
            let mut session = scene.client.run(|| TcpSession::connect(to, PATIENCE)).unwrap();
            session.ask(b"x").unwrap();
            tcp.push(session);
            until("TCP", ip, open);
        }
        let unconnected = scene.client.run(|| UdpSession::open(to, PATIENCE)).unwrap();
        unconnected.ask_to(b"x", to).unwrap();
        let connected = scene.client.run(|| UdpSession::connect(to, PATIENCE)).unwrap();
        until("UDP", ip, 2);
        tcp.pop();
        until("TCP", ip, 2);
        drop((unconnected, connected));
        until("UDP", ip, 0);
        tcp.clear();
        until("TCP", ip, 0);
    }
    // Without the flag it goes again, with its hook.
    scene.world.take_agent("node-a").terminate().unwrap();
    let (binary, folder) = (agent_binary(), scene.world.manifests().path().to_owned());
    scene.world.start_otherwise("node-a", |_| xtask::lab::AgentSpec::with_manifests(&binary, &node, &folder));
    scene.world.start_agent("node-a");
    assert!(!hooks(&scene).contains("sock_release"));
}
