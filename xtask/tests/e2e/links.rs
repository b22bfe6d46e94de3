//! Programs on the links of a node, found by a real agent.

use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::lab::available;

use crate::{
    helpers::{cli, succeeded},
    world::{From, World, eventually},
};

/// A new link and a new address have to be in effect well within this.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What `proxy-agent links` says of one link: its role, and the programs on it with how they are attached.
fn link(world: &World, name: &str) -> Option<(String, Vec<String>)> {
    let json: Value = serde_json::from_str(&cli(world, "node-a", &["links", "-o", "json"])).unwrap();
    let links = json["links"].as_array().unwrap();
    let link = links.iter().find(|link| link["name"] == name)?;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let programs = link["attached"].as_array().unwrap().iter();
    Some((
        text(&link["role"]),
        programs.map(|one| format!("{}/{}", text(&one["program"]), text(&one["how"]))).collect(),
    ))
}

/// Of an uplink, in either of the kernel's ways.
fn is_served(link: Option<(String, Vec<String>)>) -> bool {
    let Some((role, mut programs)) = link else { return false };
    programs.sort();
    role == "uplink"
        && ["tcx", "clsact"]
            .iter()
            .any(|how| programs == [format!("uplink_egress/{how}"), format!("uplink_ingress/{how}")])
}

#[test]
fn the_links_of_a_node_are_found_and_served_without_the_agent_too() {
    if !available() {
        return;
    }
    let mut world = World::new("links", From::Manifests, &[("node-a", &["web-1"])]);
    let node = world.node("node-a");
    assert!(is_served(link(&world, "eth0")), "{:?}", link(&world, "eth0"));
    let workload = |name| link(&world, name) == Some(("workload".to_owned(), Vec::new()));
    assert!(workload("pod-1"), "{:?}", link(&world, "pod-1"));

    let start = Instant::now();
    world.lab().add_pod(&node, "web-2").unwrap();
    eventually("the link of a new pod", || if workload("pod-2") { Ok(()) } else { Err("not there yet") });
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());

    world.take_agent("node-a").kill9().unwrap();
    assert!(is_served(link(&world, "eth0")));
    world.start_agent("node-a");
    assert!(is_served(link(&world, "eth0")));

    world.take_agent("node-a").terminate().unwrap();
    assert!(is_served(link(&world, "eth0")));
    let removed = world.agent_spec("node-a").cli(&["cleanup"]).unwrap();
    succeeded(&removed);
}

#[test]
fn older_ways_and_named_uplinks_and_drivers() {
    if !available() {
        return;
    }
    let flags = ["--tc", "clsact", "--uplinks", "pod-*", "--xdp", "auto", "--workload-links", "always"];
    let start = |spec: xtask::lab::AgentSpec| flags.into_iter().fold(spec, xtask::lab::AgentSpec::arg);
    let mut world = World::with("uplinks", From::Manifests, &[("node-a", &["web-1"])], &[], start);
    let of = |role: &str, programs: &[&str]| {
        Some((role.to_owned(), programs.iter().map(|program| (*program).to_owned()).collect::<Vec<_>>()))
    };
    let workload = ["workload_ingress/clsact", "workload_egress/clsact"];
    assert_eq!(link(&world, "eth0"), of("workload", &workload));
    let uplink = ["uplink_xdp/native", "uplink_ingress/clsact", "uplink_egress/clsact"];
    assert_eq!(link(&world, "pod-1"), of("uplink", &uplink));
    world.take_agent("node-a").terminate().unwrap();
    let cleaned = world.agent_spec("node-a").cli(&["cleanup"]).unwrap();
    succeeded(&cleaned);
    let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
    for word in ["filter workload_egress of link eth0", "link uplink_xdp-if"] {
        assert!(said.contains(word), "{said}");
    }
}
