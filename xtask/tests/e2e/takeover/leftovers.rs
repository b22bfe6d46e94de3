//! `proxy-agent cleanup --kube-proxy`: what it removes, shows, and leaves alone.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;
use xtask::lab::{Lab, Node};

use super::rules::{Mode, output, ready, tables};
use crate::{helpers::succeeded, world::agent_binary};

fn node(name: &str) -> (Lab, Node) {
    let lab = Lab::with(name, &[("node-a", &[])]).expect("making the lab");
    let node = lab.node("node-a");
    (lab, node)
}

fn cleanup(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(agent_binary());
    command.args(["cleanup", "--bpffs"]).arg(node.bpffs()).args(arguments);
    node.run(|| command.output()).expect("running the agent's binary")
}

fn remove(node: &Node) -> String {
    succeeded(&cleanup(node, &["--kube-proxy"]))
}

fn leaves_others_alone(name: &str, mode: Mode) {
    let (_lab, node) = node(name);
    mode.add_others(&node);
    let others = mode.all(&node);
    assert!(remove(&node).contains("nothing of kube-proxy's is here"));
    assert_eq!(mode.all(&node), others, "nothing was there to remove");
    mode.add_kube_proxy(&node);
    let both = mode.all(&node);
    assert!(both.contains("KUBE-SVC-") || both.contains("service-ips"), "{both}");

    let shown = succeeded(&cleanup(&node, &["--kube-proxy", "--dry-run"]));
    assert_eq!(mode.all(&node), both, "a dry run changes nothing");
    let removed = remove(&node);
    assert_eq!(shown.replace("would remove", "removed").replace("would add", "added"), removed);

    let release = succeeded(&cleanup(&node, &[]));
    assert_eq!(release.matches("removed table").count(), 2, "the stand-in of both families: {release}");
    assert_eq!(mode.all(&node), others);
    assert!(remove(&node).contains("nothing of kube-proxy's is here"));
    assert!(succeeded(&cleanup(&node, &[])).contains("nothing is pinned"), "and no stand-in for nothing");
}

#[test]
fn rules_of_iptables_go_and_those_of_others_stay() {
    if ready() {
        leaves_others_alone("take-iptables", Mode::Iptables);
    }
}

#[test]
fn rules_of_legacy_iptables_go_and_those_of_others_stay() {
    if ready() {
        leaves_others_alone("take-legacy", Mode::Legacy);
    }
}

#[test]
fn tables_of_nftables_go_and_those_of_others_stay() {
    if ready() {
        leaves_others_alone("take-nftables", Mode::Nftables);
    }
}

#[test]
fn what_is_removed_is_named() {
    if !ready() {
        return;
    }
    let (_lab, node) = node("take-named");
    for mode in [Mode::Iptables, Mode::Nftables] {
        mode.add_kube_proxy(&node);
    }
    let shown = succeeded(&cleanup(&node, &["--kube-proxy", "--dry-run"]));
    for line in [
        "would remove rule ip nat PREROUTING -> KUBE-SERVICES (kubernetes service portals)",
        "would remove rule ip6 filter FORWARD -> KUBE-FORWARD (kubernetes forwarding rules)",
        "would remove chain ip nat KUBE-POSTROUTING with 3 rules",
        "would remove chain ip6 mangle KUBE-PROXY-CANARY with 0 rules",
        "would remove table ip kube-proxy with ",
        "would add table ip6 ferroute-connections: ",
    ] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "no {line:?} in {shown}");
    }
    let json = succeeded(&cleanup(&node, &["--kube-proxy", "--dry-run", "-o", "json"]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let found = json["found"]["remove"].as_array().expect("a list");
    assert_eq!(found.len(), shown.matches("would remove").count());
    assert_eq!(json["removed"], false);
    let table = found.iter().find(|one| one["kind"] == "table" && one["family"] == "ip6").expect("a table");
    assert_eq!(table["table"], "kube-proxy");
    let rule = found.iter().find(|one| one["kind"] == "rule").expect("a rule");
    assert!(rule["leadsTo"].as_str().is_some_and(|chain| chain.starts_with("KUBE-")), "{rule}");
}

#[test]
fn masquerading_that_a_plug_in_asks_for_stays() {
    if !ready() {
        return;
    }
    for (name, mode) in [("take-mark", Mode::Iptables), ("take-mark-legacy", Mode::Legacy)] {
        let (_lab, node) = node(name);
        mode.add_others(&node);
        mode.add_kube_proxy(&node);
        mode.add(&node, 0, "-t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 9999 -j KUBE-MARK-MASQ");
        let removed = remove(&node);
        assert!(
            removed.contains("kept chain ip nat KUBE-MARK-MASQ: a rule in CNI-HOSTPORT-DNAT"),
            "{removed}"
        );
        let left = mode.all(&node);
        for line in [
            "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
            "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        ] {
            assert_eq!(left.matches(line).count(), 1, "of IPv4 only: {left}");
        }
        assert!(!left.contains("KUBE-SERVICES -"), "{left}");
        let again = remove(&node);
        assert!(again.contains("nothing of kube-proxy's is here") && again.contains("kept chain"), "{again}");
    }
}

#[test]
fn links_and_sets_of_ipvs_mode_go() {
    if !ready() {
        return;
    }
    let (_lab, node) = node("take-ipvs");
    // Any kind of link does: this kernel may have none of kube-proxy's kind.
    node.add_idle_link("kube-ipvs0").expect("a link");
    node.add_address("kube-ipvs0", "10.96.0.1".parse().expect("an address")).expect("another address");
    let run = |command: &[&str]| output(&node, command, "");
    for set in ["KUBE-CLUSTER-IP", "KUBE-MINE"] {
        run(&["ipset", "create", set, "hash:ip,port"]);
    }
    run(&["ipset", "create", "KUBE-NODE-PORT-TCP", "bitmap:port", "range", "0-65535"]);
    run(&["ipset", "add", "KUBE-NODE-PORT-TCP", "30080"]);
    let removed = remove(&node);
    assert!(removed.contains("removed link kube-ipvs0 with "), "{removed}");
    let links = node.run(|| fs::read_to_string("/proc/net/dev")).expect("the links");
    assert!(!links.contains("kube-ipvs0"), "{links}");
    for set in ["KUBE-CLUSTER-IP", "KUBE-NODE-PORT-TCP"] {
        assert!(removed.contains(&format!("removed IP set {set}")), "{removed}");
    }
    assert_eq!(run(&["ipset", "list", "-n"]).trim(), "KUBE-MINE");
}

#[test]
fn tables_that_cannot_be_looked_into_are_named() {
    if !ready() {
        return;
    }
    let (_lab, node) = node("take-unread");
    Mode::Legacy.add_kube_proxy(&node);
    let before = Mode::Legacy.all(&node);
    let mut command = Command::new(agent_binary());
    command.args(["cleanup", "--kube-proxy"]).env("PATH", "");
    let failed = node.run(|| command.output()).expect("running the agent's binary");
    assert!(!failed.status.success());
    let said = String::from_utf8_lossy(&failed.stderr);
    for part in ["legacy iptables", "legacy ip6tables", "is not on the PATH", "iptables-legacy-save | grep"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(Mode::Legacy.all(&node), before);
}

#[test]
fn ten_thousand_services_go_in_one_transaction() {
    if !ready() {
        return;
    }
    let (_lab, node) = node("take-many");
    let hash = |n: u32| {
        let digit = |place: u32| char::from(b'A' + u8::try_from(n / 26_u32.pow(place) % 26).unwrap_or(0));
        format!("ABCDEFGHIJK{}{}{}{}7", digit(3), digit(2), digit(1), digit(0))
    };
    let mut rules = "*nat\n:KUBE-SERVICES - [0:0]\n".to_owned();
    for n in 0..10_000 {
        rules += &format!(":KUBE-SVC-{} - [0:0]\n:KUBE-SEP-{} - [0:0]\n", hash(n), hash(n));
    }
    rules += "-A PREROUTING -j KUBE-SERVICES\n";
    for n in 0..10_000 {
        let hash = hash(n);
        rules += &format!("-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-{hash}\n");
        rules += &format!(
            "-A KUBE-SVC-{hash} -j KUBE-SEP-{hash}\n-A KUBE-SEP-{hash} -p tcp -j DNAT --to 10.0.0.1:1\n"
        );
    }
    output(&node, &["iptables-nft-restore"], &(rules + "COMMIT\n"));
    let removed = remove(&node);
    assert_eq!(removed.matches("removed chain").count(), 20_001);
    let left = Mode::Iptables.all(&node);
    assert!(!left.contains("KUBE-"), "{left}");
    assert!(tables(&node).contains("table ip ferroute-connections"));
}

#[test]
fn a_kube_proxy_that_runs_is_told_of() {
    if !ready() {
        return;
    }
    let (_lab, node) = node("take-running");
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("kube-proxy");
    fs::copy("/bin/sleep", &program).expect("copying a program");
    let mut process = node.run(|| Command::new(&program).arg("60").spawn()).expect("starting it");
    let said = cleanup(&node, &["--kube-proxy"]);
    let (_lab_b, elsewhere) = self::node("take-not-running");
    let said_elsewhere = cleanup(&elsewhere, &["--kube-proxy"]);
    process.kill().expect("ending it");
    process.wait().expect("waiting for it");
    let words = format!("kube-proxy runs on this node (process {})", process.id());
    assert!(String::from_utf8_lossy(&said.stderr).contains(&words), "{said:?}");
    assert!(
        !String::from_utf8_lossy(&said_elsewhere.stderr).contains("kube-proxy runs"),
        "{said_elsewhere:?}"
    );
}
