//! What is left when a process with a lab is told to stop, or is killed. The process is this test
//! binary again, running only [`a_process_with_a_lab`].

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{AgentSpec, Lab, available, exit_on_ctrl_c};

/// Tells the child that it is one.
const CHILD: &str = "FERROUTE_LAB_CHILD";

/// Not a test of its own: what the child does.
#[test]
fn a_process_with_a_lab() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    exit_on_ctrl_c().expect("signals are listened for");
    let lab = Lab::with("child", &[("node-a", &["web-1"])]).expect("the lab is built");
    let _server = lab.pod("web-1").serve(8080).expect("a server starts");
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("agent");
    fs::write(&script, "#!/bin/sh\necho ready; while :; do sleep 0.05; done\n").expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("that can be run");
    let agent = AgentSpec::with_manifests(&script, &lab.node("node-a"), folder.path()).start();
    let agent = agent.expect("an agent starts");
    agent.wait_ready(Duration::from_secs(10)).expect("and is ready");
    eprintln!("LAB {} {} {}", agent.pid(), lab.node("node-a").cgroup().display(), folder.path().display());
    std::thread::sleep(Duration::from_secs(30));
}

struct Other {
    process: Child,
    agent: PathBuf,
    cgroup: PathBuf,
    folder: PathBuf,
}

fn start() -> Other {
    let mut process = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "a_process_with_a_lab", "--nocapture"])
        .env(CHILD, "1")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let stderr = process.stderr.take().expect("its stderr");
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("LAB ")).expect("it builds its lab");
    // Whatever it says later is read, so that it does not wait for us.
    std::thread::spawn(move || lines.for_each(drop));
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().expect("three words");
    let agent = Path::new("/proc").join(word());
    let cgroup = Path::new(word()).ancestors().nth(2).expect("the lab's root").to_owned();
    Other { process, agent, cgroup, folder: word().into() }
}

fn stop(other: &mut Other, signal: Signal) -> std::process::ExitStatus {
    assert!(other.agent.exists() && other.cgroup.exists());
    let pid = i32::try_from(other.process.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("it is told");
    other.process.wait().expect("it ends")
}

fn gone_soon(path: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while path.exists() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn a_signal_removes_everything_and_a_kill_nearly_everything() {
    if !available() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut other = start();
        assert_eq!(stop(&mut other, signal).code(), Some(130), "{signal}");
        assert!(!other.cgroup.exists(), "{signal}: {} is left", other.cgroup.display());
        assert!(!other.agent.exists(), "{signal}: the agent still runs");
        fs::remove_dir_all(&other.folder).expect("the script's folder is not the lab's");
    }

    let mut other = start();
    assert_eq!(stop(&mut other, Signal::SIGKILL).signal(), Some(9));
    assert!(gone_soon(&other.agent), "the kernel ends the agent");
    drop(Lab::new("next").expect("the next lab is built"));
    assert!(!other.cgroup.exists(), "and it sweeps up");
    fs::remove_dir_all(&other.folder).expect("the script's folder is not the lab's");
}
