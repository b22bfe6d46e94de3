//! kube-proxy's configuration file, its command line, and changes of the file while traffic runs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;
use xtask::lab::{AgentSpec, Node, Via, available, objects::service};

use crate::{
    helpers::{Traffic, bpftool, pins, succeeded, until_logged, web},
    scene::Scene,
    world::{From, SOON, agent_binary, cluster_ips, eventually, until_answered_by, until_refused},
};

/// What kubeadm writes, and nothing of conntrack that is the machine's rather than the node's.
const KUBEADM: &str = include_str!("../../../proxy-agent/src/config/tests/kubeadm.yaml");

/// A folder like the one of a ConfigMap: `config.conf` leads through the link `..data`.
struct ConfigMap {
    folder: TempDir,
    versions: usize,
}

impl ConfigMap {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut map = Self { folder, versions: 0 };
        map.swap(text);
        symlink("..data/config.conf", map.file()).expect("a link");
        map
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("config.conf")
    }

    /// As the kubelet does it.
    fn swap(&mut self, text: &str) {
        self.versions += 1;
        let name = format!("..{}", self.versions);
        let (folder, next) = (self.folder.path(), self.folder.path().join("..data_tmp"));
        fs::create_dir(folder.join(&name)).expect("a folder");
        fs::write(folder.join(&name).join("config.conf"), text).expect("a file");
        symlink(&name, &next).expect("a link");
        fs::rename(&next, folder.join("..data")).expect("swapping the links");
    }

    /// Writes into the file itself.
    fn write(&self, text: &str) {
        fs::write(self.file(), text).expect("writing the file");
    }

    /// Renames another file over it.
    fn replace(&self, text: &str) {
        let next = self.folder.path().join("next");
        fs::write(&next, text).expect("a file");
        fs::rename(&next, self.file()).expect("replacing the file");
    }
}

/// kubeadm's file with some lines replaced.
fn kubeadm(changes: &[(&str, &str)]) -> String {
    let mut text = KUBEADM.replace("maxPerCore: null", "maxPerCore: 0");
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn a_changed_file_takes_effect_and_harms_no_request() {
    if !available() {
        return;
    }
    let mut map = ConfigMap::new(&kubeadm(&[]));
    let file = map.file();
    let mut scene =
        Scene::with("config", From::Manifests, 2, |spec| spec.arg("--config").arg(file.as_os_str()));
    let node = scene.node();
    let ips = cluster_ips();
    scene.world.apply(&web("web", ips, &scene.all()));
    scene.until(ips, "web-1");
    let exposed = cluster_ips();
    let mut objects = web("exposed", exposed, &[&scene.pods[0]]);
    objects[0] = service("default", "exposed")
        .cluster_ip(exposed.0)
        .port("tcp", "TCP", 80, 8080)
        .node_port(30_080)
        .build();
    scene.world.apply(&objects);
    let loopback = "127.0.0.1:30080".parse().unwrap();
    until_answered_by(&node, Via::Tcp, loopback, "web-1");
    let traffic = Traffic::start(&scene.client, ips);
    let agent = scene.world.agent("node-a");
    let pid = agent.pid();

    // In place: the agent goes on, and says more.
    let mark = agent.mark();
    map.swap(&kubeadm(&[("verbosity: 0", "verbosity: 4")]));
    until_logged(&scene.world, "node-a", mark, &["applied the changed configuration"]);
    let mark = agent.mark();
    // What has no meaning here is named, in a changed file as in the first.
    let unheeded = [("verbosity: 0", "verbosity: 4"), ("masqueradeAll: false", "masqueradeAll: true")];
    map.swap(&kubeadm(&unheeded));
    until_logged(&scene.world, "node-a", mark, &["iptables.masqueradeAll"]);
    until_logged(&scene.world, "node-a", mark, &["asks for nothing else than before"]);
    scene.served("more");
    until_logged(&scene.world, "node-a", mark, &["DEBUG", "programmed"]);

    // With a new start, in the same process.
    for (how, setting) in [
        ("swap", "localhostNodePorts: false"),
        ("replace", "localhostNodePorts: true"),
        ("write", "localhostNodePorts: false"),
    ] {
        let (mark, text) = (agent.mark(), kubeadm(&[("localhostNodePorts: null", setting)]));
        match how {
            "swap" => map.swap(&text),
            "replace" => map.replace(&text),
            _ => map.write(&text),
        }
        until_logged(&scene.world, "node-a", mark, &["starting anew"]);
        agent.wait_for_line(mark, SOON, |line| line.message() == "ready").unwrap();
        if setting.ends_with("true") {
            until_answered_by(&node, Via::Tcp, loopback, "web-1");
        } else {
            until_refused(&node, Via::Tcp, loopback);
        }
        traffic.go_on(50);
    }

    // What is wrong changes nothing.
    let mark = agent.mark();
    map.write(&kubeadm(&[("mode: \"\"", "mode: userspace"), ("oomScoreAdj: null", "oomScoreAdj: 5000")]));
    let said = until_logged(&scene.world, "node-a", mark, &["the configuration of before goes on"]);
    assert!(said.text.contains("mode: ") && said.text.contains("oomScoreAdj: 5000"), "{}", said.text);
    scene.served("later");

    // Other maps: the second document.
    let (mark, before) = (agent.mark(), pins(&node, "maps-"));
    let second =
        "---\napiVersion: ferroute.io/v1alpha1\nkind: FerrouteConfiguration\ncapacities: {backends: 777}\n";
    map.replace(&(kubeadm(&[]) + second));
    agent.wait_for_line(mark, SOON, |line| line.message() == "ready").unwrap();
    traffic.go_on(50);
    let now = pins(&node, "maps-");
    assert_ne!(now, before);
    let path = node.bpffs().join(now).join("BACKENDS4");
    let shown = bpftool(&node, &["map".as_ref(), "show".as_ref(), "pinned".as_ref(), path.as_os_str()]);
    assert_eq!(shown["max_entries"], 777);
    assert_eq!(agent.pid(), pid);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "proxy-agent", "the process keeps its name");
    traffic.end_unharmed();
    assert_eq!(scene.world.take_agent("node-a").terminate().unwrap().code(), Some(0));
}

#[test]
fn sysctls_of_connection_tracking_are_set_in_the_nodes_network() {
    if !available() {
        return;
    }
    let read = |node: &Node, name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        node.run(|| fs::read_to_string(&path)).map(|text| text.trim().to_owned())
    };
    let map = ConfigMap::new(&kubeadm(&[
        ("tcpEstablishedTimeout: null", "tcpEstablishedTimeout: 2h"),
        ("udpStreamTimeout: 0s", "udpStreamTimeout: 77s"),
        ("tcpBeLiberal: false", "tcpBeLiberal: true"),
        // Less than 0 takes a capability that root has not everywhere.
        ("oomScoreAdj: null", "oomScoreAdj: 7"),
    ]));
    let file = map.file();
    let mut scene = Scene::new("sysctls", From::Manifests, 1);
    let node = scene.node();
    let Ok(before) = read(&node, "udp_timeout") else {
        eprintln!("skipped: this kernel tracks no connections");
        return;
    };
    let untouched = read(&node, "tcp_timeout_established").unwrap();
    assert_ne!(untouched, "7200", "a plain run leaves them alone");
    scene.world.take_agent("node-a").terminate().unwrap();
    scene.world.start_otherwise("node-a", |spec| spec.arg("--config").arg(file.as_os_str()));
    scene.world.start_agent("node-a");
    for (name, value) in [
        ("tcp_timeout_established", "7200"),
        ("tcp_timeout_close_wait", "3600"),
        ("udp_timeout_stream", "77"),
        ("udp_timeout", before.as_str()),
        ("tcp_be_liberal", "1"),
    ] {
        assert_eq!(read(&node, name).unwrap(), value, "{name}");
    }
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", scene.world.agent("node-a").pid()));
    assert_eq!(score.unwrap().trim(), "7");
    // A change counts as well.
    let mark = scene.world.agent("node-a").mark();
    map.replace(&kubeadm(&[
        ("tcpEstablishedTimeout: null", "tcpEstablishedTimeout: 2h"),
        ("udpStreamTimeout: 0s", "udpStreamTimeout: 77s"),
        ("oomScoreAdj: null", "oomScoreAdj: 9"),
    ]));
    scene.world.agent("node-a").wait_for_line(mark, SOON, |line| line.message() == "ready").unwrap();
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", scene.world.agent("node-a").pid()));
    assert_eq!(score.unwrap().trim(), "9");
}

/// kube-proxy's name for the agent, in a container as the DaemonSet of kubeadm makes it: a mount namespace in
/// which nothing is mounted at /sys/fs/bpf. The lab's cgroup is named, as the machine's root is out of bounds.
struct Container {
    folder: TempDir,
}

impl Container {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        symlink(agent_binary(), folder.path().join("kube-proxy")).expect("a link");
        let script = "#!/bin/sh\nexec unshare --mount --propagation private sh -c '\n\
                      umount -l /sys/fs/bpf 2>/dev/null\nexec \"$0\" \"$@\"' \"${0%/*}/kube-proxy\" \"$@\"\n";
        let path = folder.path().join("container");
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("that can be run");
        Self { folder }
    }

    fn kube_proxy(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(self.folder.path().join("kube-proxy"));
        command.args(arguments).output().expect("running kube-proxy")
    }
}

#[test]
fn the_binary_stands_in_kube_proxys_place() {
    if !available() {
        return;
    }
    let container = Container::new();
    let shown = succeeded(&container.kube_proxy(&["--version"]));
    assert!(shown.starts_with("Kubernetes v1.36.2 (Ferroute "), "{shown}");

    let mut scene = Scene::new("image-swap", From::Api, 2);
    let node = scene.node();
    scene.world.take_agent("node-a").terminate().unwrap();
    succeeded(&scene.world.agent_spec("node-a").cli(&["cleanup"]).unwrap());
    let kubeconfig = container.folder.path().join("kubeconfig.conf");
    scene.api().kubeconfig(&kubeconfig).unwrap();
    let text = |verbosity: &str| {
        let own = json!({
            "apiVersion": "ferroute.io/v1alpha1", "kind": "FerrouteConfiguration",
            "cgroup": node.cgroup(), "logFormat": "json",
        });
        let changes = [
            ("/var/lib/kube-proxy/kubeconfig.conf", kubeconfig.to_str().expect("a path")),
            ("localhostNodePorts: null", verbosity),
        ];
        format!("{}---\n{own}\n", kubeadm(&changes))
    };
    let mut map = ConfigMap::new(&text("localhostNodePorts: null"));

    let written = container.folder.path().join("written");
    let [from, to] = [map.file(), written.clone()].map(|path| path.to_str().unwrap().to_owned());
    succeeded(&container.kube_proxy(&[&format!("--config={from}"), &format!("--write-config-to={to}")]));
    let again = container.folder.path().join("again");
    let to = again.to_str().unwrap();
    succeeded(&container.kube_proxy(&[&format!("--config={}", written.display()), "--write-config-to", to]));
    assert_eq!(fs::read_to_string(&written).unwrap(), fs::read_to_string(&again).unwrap());

    let spec = AgentSpec::bare(&container.folder.path().join("container"), &node)
        .arg(format!("--config={from}"))
        .arg("--hostname-override=NODE-A");
    let agent = spec.start().unwrap();
    agent.wait_ready(SOON * 3).unwrap();
    let said = agent.log().all();
    let says = |words: &str| said.iter().any(|line| line.text.contains(words));
    assert!(says("the node's bpffs is not mounted into this container"), "{said:?}");
    let ips = cluster_ips();
    scene.world.apply(&web("web", ips, &scene.all()));
    scene.until(ips, "web-1");

    // A changed ConfigMap interrupts nothing, as the container stays.
    let traffic = Traffic::start(&scene.client, ips);
    let mark = agent.mark();
    map.swap(&text("localhostNodePorts: false"));
    agent.wait_for_line(mark, SOON, |line| line.message() == "ready").unwrap();
    traffic.go_on(50);
    traffic.end_unharmed();

    // What is pinned ends with the container, as the documentation says, and comes back with the next one.
    agent.kill9().unwrap();
    eventually("programs that end with the container", || {
        let shown = bpftool(&node, &["cgroup".as_ref(), "show".as_ref(), node.cgroup().as_os_str()]);
        if shown.as_array().is_none_or(Vec::is_empty) { Ok(()) } else { Err(shown.to_string()) }
    });
    let agent = spec.start().unwrap();
    agent.wait_ready(SOON * 3).unwrap();
    scene.until(ips, "web-1");
    assert_eq!(agent.terminate().unwrap().code(), Some(0));
}
