//! Rules of a node as kube-proxy and others leave them, in the node's own network namespace.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use xtask::lab::{Node, available};

/// How kube-proxy was run, and by which iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// iptables mode, with the iptables that writes to nf_tables.
    Iptables,
    /// iptables mode, with the one before that.
    Legacy,
    /// nftables mode.
    Nftables,
}

const KUBE_PROXY: [&str; 2] = [include_str!("kube-proxy-ipv4.rules"), include_str!("kube-proxy-ipv6.rules")];
const OTHERS: [&str; 2] = [include_str!("others-ipv4.rules"), include_str!("others-ipv6.rules")];
const IPTABLES: [&str; 2] = ["iptables", "ip6tables"];

/// Whether these tests can run. Guests of another kernel have no iptables.
pub(super) fn ready() -> bool {
    if !available() {
        return false;
    }
    let there = Command::new("iptables-nft-save").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: no iptables here (`cargo xtask test` installs it)");
    }
    there
}

impl Mode {
    /// Rules as kube-proxy writes them.
    pub(super) fn add_kube_proxy(self, node: &Node) {
        match self {
            Self::Nftables => succeed(node, &["nft", "-f", "-"], include_str!("kube-proxy.nft")),
            _ => self.restore(node, KUBE_PROXY),
        }
    }

    /// Rules of everybody else.
    pub(super) fn add_others(self, node: &Node) {
        match self {
            Self::Nftables => succeed(node, &["nft", "-f", "-"], include_str!("others.nft")),
            _ => self.restore(node, OTHERS),
        }
    }

    /// One more rule of somebody's, by iptables.
    pub(super) fn add(self, node: &Node, family: usize, words: &str) {
        let program = format!("{}-{}", IPTABLES[family], self.variant());
        let arguments: Vec<&str> = std::iter::once(program.as_str()).chain(words.split(' ')).collect();
        succeed(node, &arguments, "");
    }

    /// All rules there are, without what counts packets.
    pub(super) fn all(self, node: &Node) -> String {
        if self == Self::Nftables {
            return output(node, &["nft", "list", "ruleset"], "");
        }
        let families =
            IPTABLES.map(|iptables| output(node, &[&format!("{iptables}-{}-save", self.variant())], ""));
        let lines = families.iter().flat_map(|saved| saved.lines());
        let said = lines.filter(|line| !line.starts_with('#')).map(|line| match line.split_once(" [") {
            Some((chain, _counts)) if chain.starts_with(':') => chain,
            _ => line,
        });
        said.collect::<Vec<_>>().join("\n")
    }

    fn restore(self, node: &Node, rules: [&str; 2]) {
        for (iptables, rules) in IPTABLES.iter().zip(rules) {
            let program = format!("{iptables}-{}-restore", self.variant());
            succeed(node, &[&program, "--noflush"], rules);
        }
    }

    fn variant(self) -> &'static str {
        if self == Self::Legacy { "legacy" } else { "nft" }
    }
}

/// Tables of nf_tables.
pub(super) fn tables(node: &Node) -> String {
    output(node, &["nft", "list", "tables"], "")
}

fn succeed(node: &Node, command: &[&str], input: &str) {
    output(node, command, input);
}

/// Runs a command in the network of a node; it must succeed.
pub(super) fn output(node: &Node, command: &[&str], input: &str) -> String {
    let Output { status, stdout, stderr } = node.run(|| {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).expect("writing to it");
        drop(stdin);
        child.wait_with_output().expect("waiting for it")
    });
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}
