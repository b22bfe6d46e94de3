use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::datapath::Error;

const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const SYSFS_MAGIC: u64 = 0x6265_6572;

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
            mount(&there)?;
            make(root)
        }
        _ => {
            make(root)?;
            mount(root)
        }
    }
}

/// Whether a file system is mounted exactly at `root`.
pub(super) fn is_mount_point(root: &Path) -> bool {
    let device = |path: PathBuf| fs::metadata(path).map(|metadata| metadata.dev());
    device(root.to_owned()).is_ok_and(|own| device(root.join("..")).is_ok_and(|parent| parent != own))
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

fn mount(point: &Path) -> Result<(), Error> {
    rustix::mount::mount("bpf", point, "bpf", rustix::mount::MountFlags::empty(), c"mode=0700")
        .map_err(|error| Error::Mount { path: point.to_owned(), source: error.into() })?;
    tracing::info!(path = %point.display(), "mounted bpffs");
    Ok(())
}
