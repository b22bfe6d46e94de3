use std::{
    fs::{self, File},
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::Error;

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
        Ok(Self { path, directory, id })
    }
}

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
fn mounted() -> Result<PathBuf, Error> {
    let mounts = fs::read("/proc/self/mounts").map_err(Error::path("reading", "/proc/self/mounts"))?;
    mount_points(&mounts, b"cgroup2").next().ok_or(Error::NoCgroup)
}

/// The mount points of all file systems of a kind, in the order of `/proc/self/mounts`.
fn mount_points<'a>(mounts: &'a [u8], kind: &'a [u8]) -> impl Iterator<Item = PathBuf> + 'a {
    mounts.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == kind).then(|| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
    })
}

/// The kernel writes blanks and backslashes as `\ooo`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
        cgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n\
        cgroup2 /mnt cgroup2 rw 0 0\n";

    #[test]
    fn the_hierarchy_is_found_beside_version_1() {
        let found: Vec<_> = mount_points(MOUNTS, b"cgroup2").collect();
        assert_eq!(found, [Path::new("/sys/fs/cgroup/uni fied"), Path::new("/mnt")]);
        assert_eq!(mount_points(b"proc /proc proc rw 0 0\n", b"cgroup2").next(), None);
    }

    #[test]
    fn an_ordinary_directory_is_no_cgroup() {
        let error = Cgroup::open(Some(Path::new("/proc"))).unwrap_err();
        assert!(error.to_string().contains("--cgroup"), "{error}");
    }
}
