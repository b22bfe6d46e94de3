//! Kernel modules: which are needed, and in which order they have to be loaded.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use super::requirements;
use crate::progress::capture;

/// What the lab, the agent and the tests need of a kernel; where it is built in, nothing has to be loaded.
const NEEDED: [&str; 9] =
    ["veth", "dummy", "bridge", "8021q", "sch_ingress", "cls_bpf", "inet_diag", "tcp_diag", "udp_diag"];

/// What only the tests of [`LATE_TESTS`](super::guest::LATE_TESTS) need. With it the kernel answers SCTP by itself, also what
/// is for the raw sockets of the others.
const NEEDED_LATER: [&str; 1] = ["sctp"];

/// Makes the index of a kernel's modules, which Debian makes only when a package is installed.
pub(super) fn index(tree: &Path, release: &str) -> Result<()> {
    let depmod = requirements::find("depmod").context("depmod is gone from this machine")?;
    capture(Command::new(depmod).arg("--basedir").arg(tree).arg(release)).map(drop)
}

/// Modules by when they are loaded: paths below [`Kernel::modules`], in order.
pub(super) struct Modules {
    /// Before the first test.
    pub(super) first: Vec<String>,
    /// Before those of [`LATE_TESTS`](super::guest::LATE_TESTS).
    pub(super) later: Vec<String>,
}

/// What has to be loaded.
pub(super) fn to_load(kernel: &Kernel) -> Result<Modules> {
    let index = kernel.modules().join("modules.dep");
    let index = fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    let first = order(&index, &NEEDED);
    let mut later = order(&index, &NEEDED_LATER);
    later.retain(|module| !first.contains(module));
    Ok(Modules { first, later })
}

/// From an index with lines `module: what it needs, what is needed first at the end`.
fn order(index: &str, needed: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in needed {
        let Some((module, needs)) =
            index.lines().filter_map(|line| line.split_once(':')).find(|(module, _)| is_module(module, name))
        else {
            continue;
        };
        for module in needs.split_whitespace().rev().chain([module]) {
            if !order.iter().any(|known| known == module) {
                order.push(module.to_owned());
            }
        }
    }
    order
}

/// Modules are files `name.ko`, or `name.ko.xz` where they are compressed.
fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    file.strip_prefix(name).is_some_and(|rest| rest == ".ko" || rest.starts_with(".ko."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/drivers/net/veth.ko.xz:\n\
        kernel/net/ipv4/inet_diag.ko.xz:\n\
        kernel/net/ipv4/tcp_diag.ko.xz: kernel/net/ipv4/inet_diag.ko.xz\n\
        kernel/net/llc/llc.ko.xz:\n\
        kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz\n\
        kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz kernel/net/802/stp.ko.xz \
        kernel/net/llc/llc.ko.xz\n\
        kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let order = order(INDEX, &["bridge", "built_in", "inet_diag", "tcp_diag"]);
        assert_eq!(
            order,
            [
                "kernel/net/llc/llc.ko.xz",
                "kernel/net/802/stp.ko.xz",
                "kernel/net/bridge/bridge.ko.xz",
                "kernel/net/ipv4/inet_diag.ko.xz",
                "kernel/net/ipv4/tcp_diag.ko.xz",
            ]
        );
    }

    #[test]
    fn names_are_whole() {
        assert!(is_module("kernel/net/bridge/bridge.ko", "bridge"));
        assert!(!is_module("kernel/net/bridge/br_netfilter.ko", "br"));
        assert!(!is_module("kernel/net/sctp/sctp_diag.ko.xz", "sctp"));
    }
}
