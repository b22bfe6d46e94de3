use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::datapath::{Error, mounts};

const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// What stands in the table of mounts before a bpffs that an agent mounted for itself alone.
const OURS: &str = "ferroute";

/// Makes `root` a directory on a bpffs.
///
/// A directory below a bpffs is just made. Elsewhere a bpffs is mounted at `root`, or at `/sys/fs/bpf`, where
/// nobody can make directories.
pub(super) fn prepare(root: &Path) -> Result<(), Error> {
    let there = nearest(root);
    let kind = kind(&there).map_err(Error::path("inspecting", &there))?;
    let make = |path: &Path| fs::create_dir_all(path).map_err(Error::path("creating directory", path));
    match kind {
        BPF_FS_MAGIC => make(root),
        SYSFS_MAGIC => {
            // For everybody, as an init system would have done; in a container there is nobody else.
            mount(if mounts::are_of_a_container() { OURS } else { "bpf" }, &there)?;
            make(root)
        }
        _ => {
            make(root)?;
            mount(OURS, root)
        }
    }
}

/// Whether a bpffs that an agent mounted is mounted exactly at `root`.
pub(super) fn is_our_mount(root: &Path) -> bool {
    let Ok(root) = fs::canonicalize(root) else { return false };
    mounts::read().is_ok_and(|mounts| {
        mounts::of_kind(&mounts, b"bpf").any(|mount| mount.source == OURS.as_bytes() && mount.point == root)
    })
}

/// Whether `root` is on a bpffs that an agent mounted in its container, and that ends with it.
pub(super) fn ends_with_container(root: &Path) -> bool {
    let Ok(root) = fs::canonicalize(root) else { return false };
    let Ok(table) = mounts::read() else { return false };
    let around = mounts::of_kind(&table, b"bpf").filter(|mount| root.starts_with(&mount.point));
    let nearest = around.max_by_key(|mount| mount.point.components().count());
    nearest.is_some_and(|mount| mount.source == OURS.as_bytes()) && mounts::are_of_a_container()
}

/// Whether the directory is on a bpffs.
pub(super) fn is_on_bpffs(path: &Path) -> bool {
    kind(path).is_ok_and(|kind| kind == BPF_FS_MAGIC)
}

fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn kind(path: &Path) -> io::Result<u64> {
    Ok(rustix::fs::statfs(path)?.f_type.cast_unsigned())
}

fn mount(source: &str, point: &Path) -> Result<(), Error> {
    let failed = |source| Error::Mount { path: point.to_owned(), source };
    // Whatever is there would be hidden: all of /sys/fs, with the cgroups, by a slip in `--bpffs`.
    if fs::read_dir(point).map_err(failed)?.next().is_some() {
        return Err(failed(io::ErrorKind::DirectoryNotEmpty.into()));
    }
    rustix::mount::mount(source, point, "bpf", rustix::mount::MountFlags::empty(), c"mode=0700")
        .map_err(|error| failed(error.into()))?;
    tracing::info!(path = %point.display(), "mounted bpffs");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_over_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let error = prepare(directory.path()).unwrap_err();
        let Error::Mount { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert!(!is_our_mount(directory.path()));
    }
}
