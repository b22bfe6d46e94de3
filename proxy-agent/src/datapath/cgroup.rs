use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Error, mounts};

/// The cgroup whose processes' sockets are served, with all cgroups below it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
    pub(crate) directory: File,
    /// What the kernel calls the cgroup by.
    pub(crate) id: u64,
}

impl Cgroup {
    /// Opens the cgroup at `path`, or the root of the cgroup v2 hierarchy for `None`.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
        /// The kernel numbers the directories of the hierarchy from 1, its root.
        const ROOT: u64 = 1;
        let looked_up = path.is_none();
        let path = match path {
            Some(path) => path.to_owned(),
            None => mounted()?,
        };
        let directory = File::open(&path).map_err(Error::path("opening cgroup", &path))?;
        let kind = rustix::fs::fstatfs(&directory)
            .map_err(|error| Error::path("inspecting cgroup", &path)(error.into()))?;
        if u64::try_from(kind.f_type).ok() != Some(CGROUP2_SUPER_MAGIC) {
            return Err(Error::NotACgroup(path));
        }
        let id = directory.metadata().map_err(Error::path("inspecting cgroup", &path))?.ino();
        if looked_up && id != ROOT {
            tracing::warn!(
                cgroup = %path.display(),
                "this is not the root of the hierarchy, but what a container sees as one: only processes below \
                 it are served; mount the host's /sys/fs/cgroup into the container, or name a directory with --cgroup"
            );
        }
        Ok(Self { path, directory, id })
    }
}

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
fn mounted() -> Result<PathBuf, Error> {
    mounts::of_kind(&mounts::read()?, b"cgroup2").next().map(|mount| mount.point).ok_or(Error::NoCgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_directory_is_no_cgroup() {
        let error = Cgroup::open(Some(Path::new("/proc"))).unwrap_err();
        assert!(error.to_string().contains("--cgroup"), "{error}");
    }
}
