use std::{fs, os::unix::fs::MetadataExt};

use super::{
    CGROUP2_SUPER_MAGIC,
    choose::{Evidence, Mount},
};
use crate::datapath::{Error, mounts};

/// Of the thread, which may have namespaces of its own.
const OWN: &str = "/proc/thread-self/cgroup";
/// The first process that can be seen.
const FIRST: &str = "/proc/1/cgroup";

/// Looks around.
pub(super) fn read() -> Result<Evidence, Error> {
    let table = mounts::read_info()?;
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in mounts::info_of_kind(&table, b"cgroup2") {
        // Something else may have been mounted over it since; of two at one place the later is seen.
        let seen = rustix::fs::statfs(&mount.point)
            .is_ok_and(|kind| u64::try_from(kind.f_type).ok() == Some(CGROUP2_SUPER_MAGIC));
        let Ok(metadata) = fs::metadata(&mount.point) else { continue };
        if seen {
            mounts.retain(|other| other.point != mount.point);
            mounts.push(Mount { id: metadata.ino(), root: mount.root, point: mount.point });
        }
    }
    Ok(Evidence { mounts, own: cgroup(OWN), first: cgroup(FIRST) })
}

/// The path in the version 2 hierarchy, which has the number 0.
fn cgroup(file: &str) -> Option<String> {
    let all = fs::read_to_string(file).ok()?;
    all.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}
