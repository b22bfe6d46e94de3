//! The lab itself: does it carry traffic, do a node's programs see its pods and nobody else, and
//! does it leave nothing behind.

#[path = "lab/network.rs"]
mod network;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xtask::lab::{Answer, Failure, Lab, Load, LoadSpec, Via, ask, ask_within, available, mapped};

/// Some tests look at what a whole process has: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Every way to ask that this kernel has.
fn vias() -> Vec<Via> {
    let mut vias = vec![Via::Tcp, Via::Udp, Via::UdpConnected];
    if Path::new("/proc/sys/net/mptcp").exists() {
        vias.push(Via::Mptcp);
    }
    vias
}

fn two_nodes(name: &str) -> Lab {
    let nodes: &[(&str, &[&str])] = &[("node-a", &["client", "web-1"]), ("node-b", &["web-2"])];
    Lab::with(name, nodes).expect("the lab is built")
}

fn said(answer: Result<Answer, Failure>) -> Result<String, ErrorKind> {
    answer.map(|answer| answer.endpoint).map_err(|failure| failure.kind)
}

#[test]
fn everyone_reaches_everyone() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("reach");
    let outside = lab.add_outside("outside").expect("a client is added");
    let places = [
        (*lab.pod("client")).clone(),
        (*lab.pod("web-1")).clone(),
        (*lab.pod("web-2")).clone(),
        (*lab.node("node-a")).clone(),
        (*lab.node("node-b")).clone(),
        outside,
    ];
    let _servers = places.each_ref().map(|place| place.serve(8080).expect("a server starts"));
    for from in &places {
        for to in &places {
            for ip in to.addresses().both() {
                for via in vias() {
                    let address = SocketAddr::new(ip, 8080);
                    let context = format!("from {} to {} ({address}) by {via:?}", from.name(), to.name());
                    let answer = from
                        .run(|| ask(via, address))
                        .unwrap_or_else(|failure| panic!("{context}: {failure}"));
                    assert_eq!(answer.endpoint, to.name(), "{context}");
                    assert_eq!(answer.local, address, "{context}");
                    assert_eq!(answer.remote, address, "{context}");
                    assert_eq!(answer.echo, b"who are you?", "{context}");
                    // No address translation anywhere: the server sees who asks.
                    if from.name() != to.name() {
                        assert!(from.addresses().both().contains(&answer.peer.ip()), "{context}: {answer:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn clients_report_what_happened() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("report");
    let (client, web) = (lab.pod("client"), lab.pod("web-2"));
    let [v4, v6] = web.addresses().both().map(|ip| SocketAddr::new(ip, 8080));
    for address in [v4, v6] {
        for via in vias().into_iter().filter(|via| *via != Via::Udp) {
            let failure = client.run(|| ask(via, address)).expect_err("nobody listens");
            assert!(failure.refused(), "{via:?} {address}: {failure}");
        }
    }
    let _server = web.serve(8080).expect("a server starts");
    for via in vias() {
        let SocketAddr::V4(plain) = v4 else { unreachable!("it is an IPv4 address") };
        let answer = client.run(|| ask(via, mapped(plain))).expect("a mapped address is answered");
        assert_eq!(answer.remote, mapped(plain), "{via:?}");
        assert_eq!(answer.peer.ip(), IpAddr::V4(client.addresses().v4), "{via:?}");
    }
    let nobody: SocketAddr = "10.244.2.99:8080".parse().expect("an address");
    let patience = Duration::from_millis(300);
    let failure = client.run(|| ask_within(Via::Udp, nobody, patience)).expect_err("nobody is there");
    assert!(failure.timed_out(), "{failure}");
}

#[test]
fn a_server_carries_load() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("load");
    let _server = lab.pod("web-2").serve(8080).expect("a server starts");
    let to = SocketAddr::new(lab.pod("web-2").addresses().v4.into(), 8080);
    let spec = LoadSpec { pause: Duration::ZERO, most: 2_000, ..LoadSpec::new(Via::Tcp, to) };
    let begin = std::time::Instant::now();
    let load = Load::start(&lab.pod("client"), spec);
    assert!(load.wait_for_more(2_000, Duration::from_secs(20)), "{:?}", load.stop());
    eprintln!("2,000 connections in {:?}", begin.elapsed());
    let report = load.stop();
    assert_eq!((report.answered(), report.failed), (2_000, 0), "{report:?}");
}

/// The reason for threaded cgroups: what an agent attaches to its node's cgroup holds for the
/// sockets of that node's pods and host, and for nothing else in this process.
#[test]
fn a_program_on_a_nodes_cgroup_sees_that_node_alone() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("cgroup");
    let outside = lab.add_outside("outside").expect("a client is added");
    let _server = lab.pod("web-2").serve(8080).expect("a server starts");
    let to = SocketAddr::new(lab.pod("web-2").addresses().v4.into(), 8080);
    let everyone = || {
        [
            lab.pod("client").run(|| said(ask(Via::Tcp, to))),
            lab.node("node-a").run(|| said(ask(Via::Tcp, to))),
            lab.node("node-b").run(|| said(ask(Via::Tcp, to))),
            lab.pod("web-2").run(|| said(ask(Via::Tcp, to))),
            outside.run(|| said(ask(Via::Tcp, to))),
        ]
    };
    let answered = || Ok("web-2".to_owned());
    let denied = || Err(ErrorKind::PermissionDenied);
    assert_eq!(everyone(), [answered(), answered(), answered(), answered(), answered()]);
    let link = lab.node("node-a").deny_connect4().expect("a program is attached");
    assert_eq!(everyone(), [denied(), denied(), answered(), answered(), answered()]);
    drop(link);
    assert_eq!(everyone(), [answered(), answered(), answered(), answered(), answered()]);
}

#[test]
fn a_nodes_bpffs_is_its_own_and_is_seen_by_its_children() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("bpffs");
    let (a, b) = (lab.node("node-a"), lab.node("node-b"));
    let (dir_a, dir_b) = (a.bpffs(), b.bpffs());
    a.run(|| fs::create_dir(&dir_a)).expect("a folder in the bpffs");
    assert!(a.run(|| dir_a.is_dir()), "later threads see it");
    let seen = a.run(|| Command::new("ls").arg("-d").arg(&dir_a).output()).expect("ls runs");
    assert!(seen.status.success(), "child processes see it: {seen:?}");
    assert!(!dir_a.exists(), "the rest of the machine does not");
    assert!(!b.run(|| dir_b.exists()), "the other node has its own");
    assert!(a.run(std::env::current_dir).expect("a working directory").ends_with("xtask"));
}

#[test]
fn a_lab_leaves_nothing_behind() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mine = || fs::read_to_string("/proc/self/cgroup").expect("a cgroup");
    let links = || fs::read_to_string("/proc/self/net/dev").map(|all| all.lines().count()).expect("links");
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("mounts");
    let before = (mine(), links(), mounts());
    let failed = std::panic::catch_unwind(|| {
        let lab = two_nodes("panics");
        let _server = lab.pod("web-1").serve(8080).expect("a server starts");
        assert!(mine().contains("ferroute-lab-"), "inside of the lab's cgroup");
        let path = lab.node("node-a").cgroup().to_owned();
        assert!(path.is_dir());
        std::panic::resume_unwind(Box::new(path));
    });
    let path = failed.expect_err("it panics").downcast::<std::path::PathBuf>().expect("its cgroup");
    assert!(!path.exists(), "the node's cgroup is gone");
    let root = path.ancestors().nth(2).expect("the lab's root");
    assert!(!root.exists(), "{} is gone", root.display());
    assert_eq!((mine(), links(), mounts()), before);
}

#[test]
fn a_thread_of_the_lab_may_be_the_last_to_let_go() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("last");
    let path = lab.node("node-a").cgroup().to_owned();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let pod = lab.pod("client");
    let thread = (*pod).clone().spawn(move || gone.recv().is_err());
    drop((lab, pod));
    assert!(path.exists(), "the thread keeps the lab up");
    drop(go);
    assert!(thread.join().expect("it ends"));
    assert!(!path.exists(), "and takes it down");
}

#[test]
fn what_a_killed_lab_left_is_removed_by_the_next() {
    if !available() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = two_nodes("sweep");
    let root = lab.node("node-a").cgroup().ancestors().nth(3).expect("the cgroup mount").to_owned();
    drop(lab);
    let ended = Command::new("true").spawn().map(|mut child| {
        let id = child.id();
        child.wait().map(|_| id)
    });
    let id = ended.expect("a process starts").expect("and ends");
    let cgroup = root.join(format!("ferroute-lab-{id}"));
    fs::create_dir_all(cgroup.join("lab-1/node-a")).expect("a stale cgroup");
    let folder = std::env::temp_dir().join(format!("ferroute-lab-{id}"));
    fs::create_dir_all(folder.join("lab-1")).expect("a stale folder");
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::open(&folder).and_then(|folder| folder.set_modified(old)).expect("made a minute ago");
    let alive = root.join(format!("ferroute-lab-{}", std::os::unix::process::parent_id()));
    fs::create_dir(&alive).expect("the cgroup of a living process");
    drop(two_nodes("sweeps"));
    let left = [&cgroup, &folder, &alive].map(|path| path.exists());
    fs::remove_dir(&alive).expect("removed by hand");
    assert_eq!(left, [false, false, true]);
}
