//! The unit for a manual installation, as systemd's own tools see it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// How exposed the service may be, of 10. What remains is what it is for: the host's network, and eBPF.
const EXPOSURE: &str = "42";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn unit() -> PathBuf {
    file("deploy/systemd/ferroute.service")
}

/// `None`, with a word, on a machine without systemd's tools; where CI is set that is a failure.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI is set, and systemd-analyze cannot be run: {error}"
            );
            eprintln!("skipped: systemd-analyze (Debian: systemd) cannot be run: {error}");
            None
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    // It wants the binary to be there.
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(unit()).unwrap();
    let copy = folder.path().join("ferroute.service");
    fs::write(&copy, text.replace("/usr/local/bin/proxy-agent", "/bin/true")).unwrap();
    let Some(output) = analyze(&["verify", copy.to_str().unwrap()]) else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}

#[test]
fn the_unit_exposes_no_more_than_it_has_to() {
    let unit = unit();
    let threshold = format!("--threshold={EXPOSURE}");
    let Some(output) = analyze(&["security", "--offline=yes", &threshold, unit.to_str().unwrap()]) else {
        return;
    };
    assert!(output.status.success(), "{}", said(&output));
}

/// What the agent's own filter lets through, systemd's must too, or it would be refused without a word in the log.
#[test]
fn the_units_filter_has_all_that_the_agents_has() {
    let Some(groups) = analyze(&["syscall-filter"]) else { return };
    let groups = String::from_utf8(groups.stdout).unwrap();
    let text = fs::read_to_string(unit()).unwrap();
    let filter = text.lines().find_map(|line| line.strip_prefix("SystemCallFilter=")).expect("a filter");
    let mut allowed = BTreeSet::new();
    filter.split_whitespace().for_each(|entry| add(&groups, entry, &mut allowed));
    let lists = fs::read_to_string(file("proxy-agent/src/privileges/syscalls.rs")).unwrap();
    let wanted = lists.split("libc::SYS_").skip(1).map(|rest| {
        rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default()
    });
    let missing: Vec<&str> = wanted.filter(|call| !allowed.contains(*call)).collect();
    assert!(allowed.len() > 100 && missing.is_empty(), "{missing:?} of {}", allowed.len());
}

/// A system call, or all of a group, from systemd's own list: the name of the group, then its members, indented.
fn add(groups: &str, entry: &str, allowed: &mut BTreeSet<String>) {
    if !entry.starts_with('@') {
        allowed.insert(entry.to_owned());
        return;
    }
    let members = groups.lines().skip_while(|line| *line != entry).skip(1);
    for member in members.take_while(|line| line.starts_with(' ') || line.is_empty()) {
        let member = member.trim();
        if !member.is_empty() && !member.starts_with('#') {
            add(groups, member, allowed);
        }
    }
}
