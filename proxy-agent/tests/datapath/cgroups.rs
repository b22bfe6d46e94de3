//! The cgroup of the node, found from namespaces as container runtimes make them. Nothing is attached.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{self, Command},
};

use proxy_agent::datapath::{Because, Error, of_node};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount},
    thread::UnshareFlags,
};

use crate::world::hierarchy;

const SYS: &str = "/sys/fs/cgroup";
const LAYOUT: &str = "FERROUTE_TEST_LAYOUT";

/// Runs a layout in a process of its own, in a cgroup that is removed afterwards.
fn in_layout(test: &str, layout: fn(&Path)) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if let Some(cgroup) = env::var_os(LAYOUT) {
        layout(Path::new(&cgroup));
        return;
    }
    let cgroup = hierarchy().join(format!("ferroute-test-{}-{test}", process::id()));
    fs::create_dir_all(cgroup.join("pod")).unwrap();
    // A process 1 of its own, which stays outside of that cgroup: the machine's may be out of reach.
    let mut child = Command::new("unshare");
    child.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "\"$@\"; exit $?", "sh"]);
    child.arg(env::current_exe().unwrap()).args([&format!("cgroups::{test}"), "--exact"]);
    let output = child.env(LAYOUT, &cgroup).output().unwrap();
    // The child is gone, and nobody else was in there.
    fs::remove_dir(cgroup.join("pod")).unwrap();
    fs::remove_dir(&cgroup).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

/// Moves this process into a cgroup, and this thread into a cgroup namespace with it as the root.
fn enter(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string()).unwrap();
    // SAFETY: a new cgroup namespace leaves the thread's memory and descriptors as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }.unwrap();
}

/// A mount namespace of this thread's own, without any cgroups; what was there is at `/run/host`. `/run` is empty.
fn own_mounts() {
    // SAFETY: a new mount namespace leaves the thread's memory and descriptors as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let host = hierarchy();
    mount("none", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
    fs::create_dir("/run/host").unwrap();
    mount_bind(&host, "/run/host").unwrap();
    for point in [Path::new(SYS), &host] {
        // The second is below the first, or the same.
        let _gone = unmount(point, UnmountFlags::DETACH);
    }
}

/// What a container runtime mounts for a container with a cgroup namespace.
fn mount_own() {
    mount("none", SYS, "cgroup2", MountFlags::empty(), None).unwrap();
}

fn id(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn the_hosts_mount_in_a_container() {
    in_layout("the_hosts_mount_in_a_container", |cgroup| {
        own_mounts();
        enter(&Path::new("/run/host").join(cgroup.file_name().unwrap()));
        mount_own();
        assert_ne!(id(Path::new(SYS)), 1, "this is no container");
        assert_eq!(of_node().unwrap(), ("/run/host".into(), Because::Root));
    });
}

#[test]
fn the_nodes_mount_on_a_node_that_is_a_container() {
    in_layout("the_nodes_mount_on_a_node_that_is_a_container", |cgroup| {
        own_mounts();
        enter(&Path::new("/run/host").join(cgroup.file_name().unwrap()));
        unmount("/run/host", UnmountFlags::DETACH).unwrap();
        fs::create_dir("/run/node").unwrap();
        mount("none", "/run/node", "cgroup2", MountFlags::empty(), None).unwrap();
        let node = id(Path::new("/run/node"));
        enter(Path::new("/run/node/pod"));
        mount_own();
        let (found, because) = of_node().unwrap();
        assert_eq!((id(&found), because), (node, Because::Above));
        assert_ne!(id(Path::new(SYS)), node);
    });
}

#[test]
fn only_the_containers_own() {
    in_layout("only_the_containers_own", |cgroup| {
        own_mounts();
        enter(&Path::new("/run/host").join(cgroup.file_name().unwrap()));
        unmount("/run/host", UnmountFlags::DETACH).unwrap();
        mount_own();
        // As with a root file system that is read-only.
        mount("none", "/run", "tmpfs", MountFlags::RDONLY, None).unwrap();
        let error = of_node().unwrap_err();
        assert!(matches!(error, Error::NoCgroup { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(SYS) && said.contains("/host/sys/fs/cgroup") && said.contains("hostPath"),
            "{said}"
        );

        // With the host's processes in sight, and a place for it, the agent mounts it itself.
        unmount("/run", UnmountFlags::DETACH).unwrap();
        let (found, because) = of_node().unwrap();
        assert_eq!((found.to_str().unwrap(), because), ("/run/ferroute/cgroup", Because::Mounted));
        assert_eq!(id(&found), 1, "the root of the hierarchy");
        // Another agent there finds it.
        assert_eq!(of_node().unwrap(), (found, Because::Root));
    });
}

#[test]
fn none_on_a_host() {
    in_layout("none_on_a_host", |_| {
        own_mounts();
        unmount("/run/host", UnmountFlags::DETACH).unwrap();
        let (found, because) = of_node().unwrap();
        assert_eq!((id(&found), because), (1, Because::Mounted));
    });
}
