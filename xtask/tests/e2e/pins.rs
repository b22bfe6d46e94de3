//! What is pinned, what is attached, and how it all goes away.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use xtask::lab::{Node, Via, available};

use crate::{
    helpers::{bpftool, names, pins, succeeded, try_bpftool, until_programmed, web},
    world::{From, SOON, World, cluster_ips, until_answered_by},
};

/// Every program that is attached to the cgroup of a node.
fn attached(node: &Node) -> Vec<String> {
    let shown = bpftool(node, &["cgroup".as_ref(), "show".as_ref(), node.cgroup().as_os_str()]);
    let programs = match &shown {
        Value::Null => return Vec::new(),
        Value::Array(programs) => programs,
        other => panic!("bpftool cgroup show: {other}"),
    };
    programs.iter().map(|program| program["attach_type"].as_str().expect("a type").to_owned()).collect()
}

/// Every file below a folder that only the node sees, as paths from there.
fn files(node: &Node, folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.is_symlink() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    node.run(|| {
        let mut found = Vec::new();
        walk(folder, &mut found);
        found
    })
}

fn one_service(name: &str) -> (World, [Value; 3], std::net::SocketAddr, xtask::lab::Server) {
    let world = World::new(name, From::Manifests, &[("node-a", &["client", "web-1"])]);
    let pod = world.pod("web-1");
    let server = pod.serve(8080).unwrap();
    let ips = cluster_ips();
    let objects = web("web", ips, &[&pod]);
    world.apply(&objects);
    let to = (ips.0, 80).into();
    until_answered_by(&world.pod("client"), Via::Tcp, to, "web-1");
    (world, objects, to, server)
}

#[test]
fn cleanup_removes_everything_and_may_be_repeated() {
    if !available() {
        return;
    }
    let (mut world, _objects, to, _server) = one_service("cleanup");
    let node = world.node("node-a");
    assert_eq!(attached(&node).len(), 8);
    assert!(files(&node, &node.bpffs()).len() > 15);

    // Not under the feet of an agent that would go on as if nothing had happened.
    let refused = world.agent("node-a").run_cli(&["cleanup"]).unwrap();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("another proxy-agent"), "{error}");
    until_answered_by(&world.pod("client"), Via::Tcp, to, "web-1");

    world.take_agent("node-a").terminate().unwrap();
    let clean = || world.agent_spec("node-a").cli(&["cleanup"]).unwrap();
    succeeded(&clean());
    assert_eq!(attached(&node), Vec::<String>::new(), "programs in the cgroup");
    assert_eq!(files(&node, &node.bpffs()), Vec::<PathBuf>::new());
    assert_eq!(names(&node, &node.bpffs()).len(), 0, "folders are left");
    // Nothing is there to be removed: that is no error.
    succeeded(&clean());
    let output = world.agent_spec("node-a").cli(&["services"]).unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("nothing is pinned"), "{error}");

    world.start_agent("node-a");
    until_answered_by(&world.pod("client"), Via::Tcp, to, "web-1");
}

#[test]
fn a_pin_that_is_not_ours_is_refused_and_named() {
    if !available() {
        return;
    }
    let (mut world, _objects, to, _server) = one_service("foreign-map");
    let (node, client) = (world.node("node-a"), world.pod("client"));
    world.take_agent("node-a").terminate().unwrap();
    let pin = node.bpffs().join(pins(&node, "maps-")).join("BACKENDS4");
    node.run(|| fs::remove_file(&pin)).unwrap();
    make_map(&node, &pin);

    world.launch_agent("node-a");
    let refusal = world.take_agent("node-a").wait_ready(SOON).unwrap_err().to_string();
    for word in ["exit status: 1", pin.to_str().unwrap(), "proxy-agent cleanup"] {
        assert!(refusal.contains(word), "{word:?} is missing: {refusal}");
    }
    // What is attached has the right map and goes on.
    until_answered_by(&client, Via::Tcp, to, "web-1");

    succeeded(&world.agent_spec("node-a").cli(&["cleanup"]).unwrap());
    world.start_agent("node-a");
    until_answered_by(&client, Via::Tcp, to, "web-1");
}

#[test]
fn a_link_that_is_lost_or_not_one_is_made_again() {
    if !available() {
        return;
    }
    let (mut world, _objects, to, _server) = one_service("foreign-link");
    let (node, client) = (world.node("node-a"), world.pod("client"));
    world.take_agent("node-a").terminate().unwrap();
    let all = attached(&node);
    let [lost, wrong] = ["links/connect4", "links/sendmsg4"].map(|name| node.bpffs().join(name));
    for pin in [&lost, &wrong] {
        node.run(|| fs::remove_file(pin)).unwrap();
    }
    make_map(&node, &wrong);
    assert_eq!(attached(&node).len(), all.len() - 2);

    world.start_agent("node-a");
    let mut now = attached(&node);
    now.sort();
    let mut before = all;
    before.sort();
    assert_eq!(now, before);
    for via in [Via::Tcp, Via::Udp, Via::UdpConnected] {
        until_answered_by(&client, via, to, "web-1");
    }
}

#[test]
fn leftovers_of_an_agent_that_died_early_do_no_harm() {
    if !available() {
        return;
    }
    let (mut world, _objects, to, _server) = one_service("leftovers");
    let node = world.node("node-a");
    world.take_agent("node-a").kill9().unwrap();
    // As if it had died between making its maps and pointing to them.
    node.run(|| {
        fs::remove_file(node.bpffs().join("current"))?;
        fs::create_dir(node.bpffs().join("maps-00000000"))
    })
    .unwrap();
    world.start_agent("node-a");
    until_programmed(&world, "node-a", to, &[&world.pod("web-1")]);
    assert_ne!(pins(&node, "maps-"), "maps-00000000");
}

/// Pins a map that nobody asked for.
fn make_map(node: &Node, pin: &Path) {
    let words = "type hash key 4 value 4 entries 1 name foreign".split(' ').map(OsStr::new);
    let arguments: Vec<&OsStr> =
        ["map", "create"].map(OsStr::new).into_iter().chain([pin.as_os_str()]).chain(words).collect();
    let output = try_bpftool(node, &arguments);
    assert!(output.status.success(), "bpftool map create: {output:?}");
}
