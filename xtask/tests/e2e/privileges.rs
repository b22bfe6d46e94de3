//! What the running agent may still do. All other tests run with it limited too, and end it at a system call that its
//! lists do not have.

use std::{collections::BTreeMap, fs, time::Duration};

use xtask::{
    api_server::Rules,
    lab::{Agent, available},
};

use crate::{
    helpers::Traffic,
    scene::Scene,
    world::{From, SOURCES},
};

/// The ClusterRole that every cluster has for kube-proxy (bootstrap policy of Kubernetes 1.36).
const NODE_PROXIER: &str = "
kind: ClusterRole
rules:
  - {apiGroups: [''], resources: [endpoints, services], verbs: [list, watch]}
  - {apiGroups: [''], resources: [nodes], verbs: [get, list, watch]}
  - {apiGroups: ['', events.k8s.io], resources: [events], verbs: [create, patch, update]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
  - {apiGroups: [networking.k8s.io], resources: [servicecidrs], verbs: [list, watch]}
";

/// BPF, PERFMON, NET_ADMIN and NET_BIND_SERVICE: linux/capability.h.
const SERVE: u64 = 1 << 39 | 1 << 38 | 1 << 12 | 1 << 10;

/// SYS_ADMIN and SYS_PTRACE besides, for the thread that closes sockets in the network namespaces of pods.
const ENTER_NAMESPACES: u64 = SERVE | 1 << 21 | 1 << 19;

/// SYS_RESOURCE and SETPCAP besides, for the thread that executes the agent anew.
const RESTART: u64 = ENTER_NAMESPACES | 1 << 24 | 1 << 8;

/// The lines of interest of each thread's status.
fn threads(agent: &Agent) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent's threads");
    let mut threads = Vec::new();
    for task in tasks {
        let path = task.expect("a thread").path();
        // Threads for short work come and go.
        let (Ok(name), Ok(status)) =
            (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("status")))
        else {
            continue;
        };
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        threads.push((name.trim().to_owned(), lines));
    }
    assert!(threads.len() >= 2, "{threads:?}");
    threads
}

#[test]
fn a_running_agent_has_only_what_serving_needs() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let scene = Scene::new("privileges", from, 1);
        scene.served("before");
        for (name, status) in threads(scene.world.agent("node-a")) {
            for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
                let bits = u64::from_str_radix(&status[set], 16).expect("a set of capabilities");
                let kept = match name.as_str() {
                    "sockets" => ENTER_NAMESPACES,
                    "restart" => RESTART,
                    _ => SERVE,
                };
                assert_eq!(bits & !kept, 0, "{set} of the thread {name} under {from:?}: {bits:x}");
            }
            for (key, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
                assert_eq!(status[key], expected, "{key} of the thread {name} under {from:?}");
            }
        }
        // And with that it goes on programming.
        scene.served("after");
    }
}

#[test]
fn who_asks_for_it_keeps_everything() {
    if !available() {
        return;
    }
    let scene = Scene::with("keep", From::Manifests, 1, |spec| spec.args(&["--privileges", "keep"]));
    let own = fs::read_to_string("/proc/thread-self/status").expect("our own status");
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities").trim();
    for (name, status) in threads(scene.world.agent("node-a")) {
        assert_eq!((status["CapEff"].as_str(), status["NoNewPrivs"].as_str()), (own, "0"), "{name}");
    }
}

#[test]
fn the_role_that_every_cluster_has_for_kube_proxy_is_enough() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("node-proxier", From::Api, 2);
    scene.api().authorize(Rules::parse(NODE_PROXIER).expect("a ClusterRole"));
    // With lists and watches from the beginning.
    scene.world.take_agent("node-a").terminate().expect("the agent ends");
    scene.world.start_agent("node-a");
    let ips = scene.served("web");
    let traffic = Traffic::start(&scene.client, ips);
    scene.served("more");
    traffic.go_on(50);
    traffic.end_unharmed();
}

#[test]
fn what_is_not_allowed_is_said() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("not-allowed", From::Api, 2);
    scene.world.take_agent("node-a").terminate().expect("the agent ends");
    let rules = NODE_PROXIER.replace("resources: [endpointslices]", "resources: [others]");
    scene.api().authorize(Rules::parse(&rules).expect("a ClusterRole"));
    scene.world.launch_agent("node-a");
    let agent = scene.world.agent("node-a");
    let line = agent
        .wait_for_line(0, Duration::from_secs(10), |line| line.text.contains("answers 403"))
        .expect("a word of what is missing");
    assert!(line.text.contains("endpointslices"), "{}", line.text);
    assert!(!scene.api().forbidden().is_empty());
    // When it is allowed, it is made up for.
    scene.api().authorize(Rules::parse(NODE_PROXIER).expect("a ClusterRole"));
    scene.api().forgive();
    scene.served("allowed");
}
