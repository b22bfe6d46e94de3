//! What would be programmed, told without any privileges.

use std::{
    fs,
    net::IpAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use xtask::lab::{
    available,
    objects::{endpoint, node, service, slice},
};

use crate::{helpers::succeeded, world::agent_binary};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A cluster with everything that a plan shows.
fn sample() -> Vec<Value> {
    vec![
        node("node-a").address(ip("172.18.0.1")).address(ip("fd00:172:18::1")).build(),
        service("shop", "web")
            .kind("LoadBalancer")
            .cluster_ip(ip("10.96.0.1"))
            .cluster_ip(ip("fd00:10:96::1"))
            .port("http", "TCP", 80, 8080)
            .affinity(60)
            .spec("externalIPs", json!(["192.0.2.1"]))
            .spec("externalTrafficPolicy", json!("Local"))
            .spec("loadBalancerSourceRanges", json!(["203.0.113.0/24"]))
            .build(),
        slice("shop", "web-4", "web")
            .port("http", "TCP", 8080)
            .endpoint(endpoint(ip("10.244.1.5")).on("node-a"))
            .endpoint(endpoint(ip("10.244.2.5")).on("node-b"))
            .build(),
        service("shop", "dns").cluster_ip(ip("10.96.0.2")).port("", "UDP", 53, 5353).internal_local().build(),
        slice("shop", "dns-4", "dns")
            .port("", "UDP", 5353)
            .endpoint(endpoint(ip("10.244.1.6")).on("node-a").terminating(true))
            .endpoint(endpoint(ip("10.244.2.6")).on("node-b"))
            .build(),
    ]
}

fn planned() -> Value {
    let (one, two) = (
        json!({"address": "10.244.1.5", "port": 8080, "local": true, "terminating": false}),
        json!({"address": "10.244.2.5", "port": 8080, "local": false, "terminating": false}),
    );
    let frontend = |service: &str, port_name: &str, kind: &str, address: &str, port: u16, protocol: &str| {
        json!({
            "service": service, "portName": port_name, "kind": kind, "address": address, "port": port,
            "protocol": protocol, "internal": [one, two], "external": null, "affinitySeconds": 60,
            "whenEmpty": {"internal": "reject", "external": null}, "sourceRanges": [],
        })
    };
    let with = |mut frontend: Value, changes: Value| {
        for (field, value) in changes.as_object().expect("fields") {
            frontend[field] = value.clone();
        }
        frontend
    };
    let web = |kind: &str, address: &str, port: u16| frontend("shop/web", "http", kind, address, port, "TCP");
    let node_port4 = |address: &str| {
        with(
            web("NodePort", address, 30080),
            json!({"external": [one], "whenEmpty": {"internal": "reject", "external": "drop"}}),
        )
    };
    let node_port6 = |address: &str| {
        with(
            web("NodePort", address, 30080),
            json!({
                "internal": [], "external": [],
                "whenEmpty": {"internal": "reject", "external": "reject"},
            }),
        )
    };
    json!({"frontends": [
        with(
            frontend("shop/dns", "", "ClusterIP", "10.96.0.2", 53, "UDP"),
            json!({
                "internal": [{"address": "10.244.1.6", "port": 5353, "local": true, "terminating": true}],
                "whenEmpty": {"internal": "drop", "external": null}, "affinitySeconds": null,
            }),
        ),
        web("ClusterIP", "10.96.0.1", 80),
        with(
            web("ExternalIP", "192.0.2.1", 80),
            json!({"external": [one], "whenEmpty": {"internal": "reject", "external": "drop"}}),
        ),
        with(
            web("LoadBalancer", "198.51.100.1", 80),
            json!({
                "external": [one], "whenEmpty": {"internal": "reject", "external": "drop"},
                "sourceRanges": ["203.0.113.0/24"],
            }),
        ),
        node_port4("127.0.0.1"),
        node_port4("172.18.0.1"),
        with(web("ClusterIP", "fd00:10:96::1", 80), json!({"internal": []})),
        node_port6("::1"),
        node_port6("fd00:172:18::1"),
    ]})
}

/// Everybody may read it.
fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changing permissions");
}

#[test]
fn a_plan_needs_no_privileges_and_has_exactly_these_fields() {
    if !available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path(), 0o755);
    let (binary, manifests) = (folder.path().join("proxy-agent"), folder.path().join("manifests"));
    fs::copy(agent_binary(), &binary).unwrap();
    open_to_all(&binary, 0o755);
    fs::create_dir(&manifests).unwrap();
    open_to_all(&manifests, 0o755);
    let mut objects = sample();
    objects[1]["spec"]["ports"][0]["nodePort"] = json!(30080);
    objects[1]["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    let text: Vec<_> = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    fs::write(manifests.join("all.yaml"), text.concat()).unwrap();
    open_to_all(&manifests.join("all.yaml"), 0o644);

    let plan = |output: &str| {
        let mut command = Command::new(&binary);
        command.arg("plan").arg("--manifests").arg(&manifests).args(["--node-name", "node-a", "-o", output]);
        // Nobody, in every sense.
        let output = command.uid(65_534).gid(65_534).current_dir("/").env_clear().output().unwrap();
        (succeeded(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (json, complaints) = plan("json");
    let found: Value = serde_json::from_str(&json).unwrap();
    let (found, wanted) = (&found, &planned());
    let keys: Vec<_> = found.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["frontends"]);
    let [found, wanted] = [found, wanted].map(|plan| plan["frontends"].as_array().unwrap());
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found, wanted, "found on the left, {complaints}");
    }
    assert_eq!(found.len(), wanted.len());

    let (table, _) = plan("table");
    for word in ["shop/web:http", "shop/dns", "10.96.0.1:80/TCP", "[fd00:10:96::1]:80/TCP", "30080", "reject"]
    {
        assert!(table.contains(word), "{word} is missing:\n{table}");
    }
}
