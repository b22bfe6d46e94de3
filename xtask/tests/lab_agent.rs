//! How the lab handles an agent, with shell scripts in the agent's place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use xtask::lab::{AgentSpec, Lab, available};

const SOON: Duration = Duration::from_secs(10);

/// A lab of one node, and a script that stands in for `proxy-agent`.
struct Stage {
    lab: Lab,
    folder: TempDir,
}

impl Stage {
    fn new(name: &str, script: &str) -> Self {
        let lab = Lab::with(name, &[("node-a", &[])]).expect("the lab is built");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("that can be run");
        Self { lab, folder }
    }

    fn spec(&self) -> AgentSpec {
        let binary: PathBuf = self.folder.path().join("agent");
        AgentSpec::with_manifests(&binary, &self.lab.node("node-a"), self.folder.path())
    }
}

const READY: &str = r#"
echo '{"level":"INFO","fields":{"message":"starting"}}' >&2
echo '{"level":"INFO","fields":{"message":"ready"}}' >&2
"#;

#[test]
fn an_agent_runs_on_its_node() {
    if !available() {
        return;
    }
    let script = format!(
        "[ $1 = run ] || {{ echo cli: $*; exit 3; }}
         trap 'exit 7' TERM
         echo $*; cat /proc/self/cgroup; ls /sys/class/net >/dev/null; cat /proc/self/net/dev
         mkdir -p $7 && touch $7 2>/dev/null; {READY}
         while :; do sleep 0.05; done"
    );
    let stage = Stage::new("agent", &script);
    let node = stage.lab.node("node-a");
    let agent = stage.spec().arg("--extra").start().expect("it starts");
    agent.wait_ready(SOON).expect("it is ready");
    let said: Vec<String> = agent.log().all().into_iter().map(|line| line.text).collect();
    let (folder, cgroup, bpffs) = (stage.folder.path().display(), node.cgroup().display(), node.bpffs());
    let bpffs = bpffs.display();
    let wanted = format!(
        "run --manifests {folder} --node-name node-a --cgroup {cgroup} --bpffs {bpffs} --log-format json --extra"
    );
    assert!(said.contains(&wanted), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("0::/") && line.ends_with("/node-a")), "{said:?}");
    assert!(said.iter().any(|line| line.trim_start().starts_with("eth0:")), "{said:?}");
    assert!(agent.rss_peak().expect("it runs") > 100_000);
    let output = agent.run_cli(&["services", "-o", "json"]).expect("the command line runs");
    assert_eq!(output.status.code(), Some(3));
    let wanted = format!("cli: services -o json --bpffs {bpffs}\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    assert_eq!(agent.terminate().expect("it ends").code(), Some(7));
}

#[test]
fn an_agent_that_ends_early_is_reported_with_its_last_words() {
    if !available() {
        return;
    }
    let stage = Stage::new("early", "echo 'no such kernel' >&2; exit 4");
    let begin = Instant::now();
    let error = stage.spec().start().expect("it starts").wait_ready(SOON).expect_err("it ends");
    let text = format!("{error:#}");
    assert!(text.contains("exit status: 4") && text.contains("no such kernel"), "{text}");
    assert!(begin.elapsed() < SOON / 2, "without waiting for the rest");
    let missing =
        AgentSpec::with_manifests("/nowhere/agent".as_ref(), &stage.lab.node("node-a"), "/".as_ref());
    let text = format!("{:#}", missing.start().expect_err("there is no such file"));
    assert!(text.contains("/nowhere/agent"), "{text}");
}

#[test]
fn killed_or_dropped_an_agent_is_gone() {
    if !available() {
        return;
    }
    let stage = Stage::new("kill", &format!("trap '' TERM; {READY} while :; do sleep 0.05; done"));
    let agent = stage.spec().start().expect("it starts");
    agent.wait_ready(SOON).expect("it is ready");
    let alive = |pid: u32| PathBuf::from(format!("/proc/{pid}")).exists();
    let pid = agent.pid();
    assert!(alive(pid));
    agent.kill9().expect("it is killed");
    assert!(!alive(pid));
    let again = stage.spec().start().expect("it starts again");
    again.wait_ready(SOON).expect("and is ready again");
    let pid = again.pid();
    drop(again);
    assert!(!alive(pid));
}
