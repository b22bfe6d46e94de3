//! From what the machine has to what is done about it. Pure.

use super::facts::{Facts, Linker};
use super::version::Version;
use super::{Purpose, Toolchain};

/// The linker release that is installed, and the oldest one that is accepted from PATH.
pub(super) const LINKER: Version = Version(0, 13, 0);
/// The oldest of Debian's compilers that works; bookworm's first rustc-web was 1.85.
const RUSTC: Version = Version(1, 96, 0);
/// The LLVM of the packages and of the linker. A linker cannot read what a newer LLVM wrote.
const LLVM_MAJOR: u32 = 22;

/// What tests use, by the names of the packages.
pub(super) const TEST_TOOLS: [Package; 5] = [
    Package { name: "bpftool", why: "a test reads the pinned maps with it" },
    Package {
        name: "iptables",
        why: "a test sets up kube-proxy's rules with it, in its own network namespaces",
    },
    Package { name: "ipset", why: "the same, for its IPVS mode" },
    Package { name: "nftables", why: "the same, for its nftables mode" },
    Package { name: "python3-pip", why: "fetches kubectl and helm, which test the manifests" },
];

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Everything is there.
    Ready(Toolchain),
    /// Do this, then look again.
    Install(Vec<Step>),
    /// Only the user can go on: what is missing, and the commands that change it.
    Tell(Vec<String>),
}

/// One installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Debian packages, in one transaction.
    Apt(Vec<Package>),
    /// bpf-linker from crates.io, into the workspace.
    Linker,
}

/// A Debian package and why it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

/// Nightly where it is complete, else Debian's packages, else an explanation.
pub(super) fn choose(facts: &Facts, purpose: Purpose) -> Choice {
    let nightly = nightly(facts);
    let mut packages = if nightly.is_some() { Vec::new() } else { debian_packages(facts, purpose) };
    if purpose == Purpose::Test {
        packages.extend(TEST_TOOLS.iter().filter(|tool| !facts.has_tool(tool.name)));
    }
    let may_install = facts.debian && facts.root;
    if !packages.is_empty() && !may_install {
        return Choice::Tell(tell(facts, &packages));
    }
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(Step::Apt(packages));
    }
    let own = facts.own_linker.as_ref().filter(|linker| linker.version == LINKER);
    if nightly.is_none() && own.is_none() {
        steps.push(Step::Linker);
    }
    match nightly.or_else(|| own.map(|own| Toolchain::Debian { linker: own.path.clone() })) {
        Some(toolchain) if steps.is_empty() => Choice::Ready(toolchain),
        _ => Choice::Install(steps),
    }
}

fn nightly(facts: &Facts) -> Option<Toolchain> {
    let linker = facts.path_linker.as_ref().filter(|linker| is_new_enough(linker))?;
    (facts.nightly && facts.nightly_src).then(|| Toolchain::Nightly { linker: linker.path.clone() })
}

fn is_new_enough(linker: &Linker) -> bool {
    linker.version >= LINKER
}

fn debian_packages(facts: &Facts, purpose: Purpose) -> Vec<Package> {
    let usable = facts.debian_rustc.is_some_and(|(rustc, llvm)| rustc >= RUSTC && llvm.0 <= LLVM_MAJOR);
    let mut packages = Vec::new();
    if !usable {
        packages.push(Package { name: "rustc-web", why: "compiles the eBPF programs" });
    }
    // Sources of another release than the compiler's do not compile: both move together.
    if !usable || !facts.debian_src {
        packages.push(Package { name: "rust-web-src", why: "the sources of `core`, compiled for eBPF" });
    }
    if !facts.llvm_dev {
        packages.push(Package { name: "llvm-22-dev", why: "bpf-linker is built on LLVM" });
    }
    if purpose == Purpose::Check && (!usable || !facts.debian_clippy) {
        packages.push(Package { name: "rust-web-clippy", why: "checks the eBPF programs" });
    }
    packages
}

fn tell(facts: &Facts, packages: &[Package]) -> Vec<String> {
    let mut lines = Vec::new();
    let tools: Vec<_> = packages.iter().filter(|one| TEST_TOOLS.contains(one)).map(|one| one.name).collect();
    if tools.len() < packages.len() {
        lines.push("the eBPF programs need a compiler and a linker that this machine lacks:".to_owned());
        lines.push(format!("  {}", nightly_lacks(facts)));
        lines.push("either (any distribution, with rustup):".to_owned());
        if !(facts.nightly && facts.nightly_src) {
            lines
                .push("  rustup toolchain install nightly --profile minimal --component rust-src".to_owned());
        }
        if !facts.path_linker.as_ref().is_some_and(is_new_enough) {
            lines.push(format!(
                "  cargo install cargo-binstall && cargo binstall bpf-linker@{LINKER}   \
                 (or a binary from https://github.com/aya-rs/bpf-linker/releases, on PATH)"
            ));
        }
        if facts.debian {
            lines.push("or, as Debian packages (`cargo xtask` run by root installs them itself):".to_owned());
        }
    } else {
        lines.push(format!("the tests need your distribution's packages of {}", tools.join(", ")));
    }
    if facts.debian {
        let names: Vec<_> = packages.iter().map(|package| package.name).collect();
        lines.push("  sudo apt-get update".to_owned());
        lines.push(format!("  sudo apt-get install --no-install-recommends {}", names.join(" ")));
    }
    lines.push("then run the same `cargo xtask` command again".to_owned());
    lines
}

/// Why nightly was passed over, in one line.
fn nightly_lacks(facts: &Facts) -> String {
    let compiler = match (facts.nightly, facts.nightly_src) {
        (false, _) => "rustup has no nightly",
        (true, false) => "rustup's nightly is without rust-src",
        (true, true) => "rustup's nightly is complete",
    };
    let linker = match &facts.path_linker {
        None => "no bpf-linker on PATH".to_owned(),
        Some(linker) if is_new_enough(linker) => format!("bpf-linker {} is on PATH", linker.version),
        Some(linker) => format!("the bpf-linker on PATH is {}, at least {LINKER} is needed", linker.version),
    };
    format!("{compiler}; {linker}")
}

#[cfg(test)]
mod tests;
