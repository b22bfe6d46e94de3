use std::path::PathBuf;

use super::*;

fn linker(path: &str, version: Version) -> Option<Linker> {
    Some(Linker { path: path.into(), version })
}

/// rustup's nightly with everything, on no particular distribution.
fn with_nightly() -> Facts {
    Facts {
        nightly: true,
        nightly_src: true,
        path_linker: linker("/path/bpf-linker", LINKER),
        tools: vec!["bpftool", "iptables", "ipset", "nftables", "python3-pip"],
        ..Facts::default()
    }
}

/// Fresh Debian, root, stable rustup only.
fn fresh_debian() -> Facts {
    Facts { debian: true, root: true, ..Facts::default() }
}

/// Debian after everything was installed.
fn full_debian() -> Facts {
    Facts {
        own_linker: linker("/tools/bpf-linker", LINKER),
        debian_rustc: Some((RUSTC, Version(22, 1, 8))),
        debian_src: true,
        llvm_dev: true,
        debian_clippy: true,
        tools: vec!["bpftool", "iptables", "ipset", "nftables", "python3-pip"],
        ..fresh_debian()
    }
}

fn names(choice: &Choice) -> Vec<&'static str> {
    let Choice::Install(steps) = choice else { panic!("{choice:?}") };
    steps
        .iter()
        .flat_map(|step| match step {
            Step::Apt(packages) => packages.iter().map(|package| package.name).collect(),
            Step::Linker => vec!["(linker)"],
        })
        .collect()
}

fn told(choice: Choice) -> String {
    let Choice::Tell(lines) = choice else { panic!("{choice:?}") };
    lines.join("\n")
}

#[test]
fn a_complete_nightly_wins_and_nothing_is_installed() {
    let nightly = Toolchain::Nightly { linker: PathBuf::from("/path/bpf-linker") };
    assert_eq!(choose(&with_nightly(), Purpose::Check), Choice::Ready(nightly.clone()));
    let both =
        Facts { nightly: true, nightly_src: true, path_linker: with_nightly().path_linker, ..full_debian() };
    assert_eq!(choose(&both, Purpose::Test), Choice::Ready(nightly));
}

#[test]
fn a_nightly_without_sources_or_linker_does_not_count() {
    let debian = Choice::Ready(Toolchain::Debian { linker: PathBuf::from("/tools/bpf-linker") });
    let no_src = Facts { nightly: true, path_linker: linker("/path/bpf-linker", LINKER), ..full_debian() };
    assert_eq!(choose(&no_src, Purpose::Build), debian);
    let no_linker = Facts { nightly: true, nightly_src: true, ..full_debian() };
    assert_eq!(choose(&no_linker, Purpose::Build), debian);
    let old_linker = Facts { path_linker: linker("/path/bpf-linker", Version(0, 9, 15)), ..no_linker };
    assert_eq!(choose(&old_linker, Purpose::Build), debian);
}

#[test]
fn a_fresh_debian_gets_everything_its_purpose_needs() {
    let build = ["rustc-web", "rust-web-src", "llvm-22-dev"];
    let with = |extra: &[&'static str]| [&build[..], extra, &["(linker)"]].concat();
    assert_eq!(names(&choose(&fresh_debian(), Purpose::Build)), with(&[]));
    assert_eq!(
        names(&choose(&fresh_debian(), Purpose::Test)),
        with(&["bpftool", "iptables", "ipset", "nftables", "python3-pip"])
    );
    assert_eq!(names(&choose(&fresh_debian(), Purpose::Check)), with(&["rust-web-clippy"]));
}

#[test]
fn nothing_is_installed_twice() {
    for purpose in [Purpose::Build, Purpose::Test, Purpose::Check] {
        assert!(matches!(choose(&full_debian(), purpose), Choice::Ready(Toolchain::Debian { .. })));
    }
    let no_tool = Facts { tools: vec!["iptables", "ipset", "nftables", "python3-pip"], ..full_debian() };
    assert_eq!(names(&choose(&no_tool, Purpose::Test)), ["bpftool"]);
    let no_src = Facts { debian_src: false, ..full_debian() };
    assert_eq!(names(&choose(&no_src, Purpose::Build)), ["rust-web-src"]);
}

#[test]
fn an_outdated_compiler_is_upgraded_with_its_sources_and_clippy() {
    let old = Facts { debian_rustc: Some((Version(1, 85, 0), Version(19, 1, 7))), ..full_debian() };
    assert_eq!(names(&choose(&old, Purpose::Check)), ["rustc-web", "rust-web-src", "rust-web-clippy"]);
}

#[test]
fn only_the_linker_needs_no_root() {
    let facts = Facts { own_linker: None, root: false, ..full_debian() };
    assert_eq!(choose(&facts, Purpose::Build), Choice::Install(vec![Step::Linker]));
    let other = Facts { own_linker: linker("/tools/bpf-linker", Version(0, 12, 0)), ..facts };
    assert_eq!(choose(&other, Purpose::Build), Choice::Install(vec![Step::Linker]));
}

#[test]
fn without_root_the_exact_commands_are_told() {
    let facts = Facts { root: false, nightly: true, ..fresh_debian() };
    let text = told(choose(&facts, Purpose::Build));
    assert!(text.contains("rustup's nightly is without rust-src; no bpf-linker on PATH"), "{text}");
    assert!(
        text.contains("apt-get install --no-install-recommends rustc-web rust-web-src llvm-22-dev"),
        "{text}"
    );
    assert!(text.contains("rustup toolchain install nightly"), "{text}");
}

#[test]
fn elsewhere_no_apt_is_told() {
    let facts = Facts { root: true, path_linker: linker("/p", Version(0, 9, 0)), ..Facts::default() };
    let text = told(choose(&facts, Purpose::Test));
    assert!(!text.contains("apt-get"), "{text}");
    assert!(
        text.contains("at least 0.13.0 is needed") && text.contains("binstall bpf-linker@0.13.0"),
        "{text}"
    );
    let text = told(choose(
        &Facts { tools: vec!["ipset", "nftables", "python3-pip"], ..with_nightly() },
        Purpose::Test,
    ));
    assert!(text.contains("bpftool, iptables") && !text.contains("nightly"), "{text}");
}
