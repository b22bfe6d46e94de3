use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    mount::{MountFlags, UnmountFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::datapath::mounts;

/// Where the agent mounts the node's hierarchy when nobody has: in its own mount namespace, if it has one.
const POINT: &str = "/run/ferroute/cgroup";
/// What stands in the table of mounts before it.
const OURS: &str = "ferroute";
/// The inode of the first cgroup namespace (`PROC_CGROUP_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xefff_fffb;

/// Mounts the hierarchy as it is seen from the first cgroup namespace, or from that of a process 1 outside of this
/// container (a pod with `hostPID`; on kind that is the node's), which `first_is_outside` says. Why it could not be done, otherwise.
pub(super) fn mount(first_is_outside: bool) -> Result<PathBuf, String> {
    let here = namespace("/proc/thread-self/ns/cgroup")
        .map_err(|error| format!("looking at the cgroup namespace: {error}"))?;
    if here == FIRST_NAMESPACE {
        return make().map_err(|error| format!("mounting one at {POINT}: {error}"));
    }
    let entered =
        "entering the cgroup namespace of process 1, which needs hostPID, CAP_SYS_PTRACE and CAP_SYS_ADMIN";
    let first = File::open("/proc/1/ns/cgroup").map_err(|error| format!("{entered}: {error}"))?;
    let there = first.metadata().map_err(|error| format!("{entered}: {error}"))?.ino();
    if there == here || !first_is_outside {
        return Err(format!("{entered}: process 1 is this container's own"));
    }
    // Of a thread, because nothing else of the agent is to change.
    let made = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(first.as_fd(), Some(LinkNameSpaceType::ControlGroup))
                .map_err(|error| format!("{entered}: {error}"))?;
            make().map_err(|error| format!("mounting one at {POINT}: {error}"))
        });
        thread.join()
    });
    made.unwrap_or_else(|_| Err("the thread that was to do it broke down".to_owned()))
}

/// Takes away what [`mount`] mounted on a host; in a container it goes with it. Whether there was something.
pub(crate) fn unmount() -> io::Result<bool> {
    let table = mounts::read().map_err(io::Error::other)?;
    let ours = mounts::of_kind(&table, b"cgroup2")
        .any(|mount| mount.source == OURS.as_bytes() && mount.point == Path::new(POINT));
    if ours {
        rustix::mount::unmount(POINT, UnmountFlags::empty())?;
    }
    Ok(ours)
}

fn namespace(file: &str) -> io::Result<u64> {
    Ok(fs::metadata(file)?.ino())
}

fn make() -> io::Result<PathBuf> {
    fs::create_dir_all(POINT)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(OURS, POINT, "cgroup2", flags, None)?;
    Ok(POINT.into())
}
