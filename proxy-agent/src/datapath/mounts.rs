//! What is mounted.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::Error;

/// Of the thread, which may have a mount namespace of its own.
const MOUNTS: &str = "/proc/thread-self/mounts";

/// The same with more fields, among them which directory of the file system is mounted.
const MOUNT_INFO: &str = "/proc/thread-self/mountinfo";

/// One line of the table.
pub(crate) struct Mount<'a> {
    /// What was said to be mounted: any text, for a file system without a device.
    pub(crate) source: &'a [u8],
    pub(crate) point: PathBuf,
}

/// What the kernel calls the first process namespace, that of the machine.
const FIRST_PROCESS_NAMESPACE: &str = "pid:[4026531836]";

/// Whether this process has mounts that end with its container: other ones than the machine's first process.
pub(crate) fn are_of_a_container() -> bool {
    let namespace = |link: &str| fs::read_link(link).ok();
    // The process 1 that a container sees is its own.
    namespace("/proc/self/ns/pid").is_some_and(|own| own != Path::new(FIRST_PROCESS_NAMESPACE))
        || namespace("/proc/1/ns/mnt") != namespace("/proc/thread-self/ns/mnt")
}

/// The table.
pub(crate) fn read() -> Result<Vec<u8>, Error> {
    fs::read(MOUNTS).map_err(Error::path("reading", MOUNTS))
}

/// All file systems of a kind, in the order of the table.
pub(crate) fn of_kind<'a>(table: &'a [u8], kind: &'a [u8]) -> impl Iterator<Item = Mount<'a>> + 'a {
    table.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (source, point) = (fields.next()?, fields.next()?);
        let point = PathBuf::from(OsString::from_vec(unescape(point)));
        (fields.next()? == kind).then_some(Mount { source, point })
    })
}

/// One line of the longer table.
pub(crate) struct MountInfo {
    pub(crate) point: PathBuf,
    /// The directory of the file system that is mounted.
    pub(crate) root: String,
}

/// The longer table.
pub(crate) fn read_info() -> Result<Vec<u8>, Error> {
    fs::read(MOUNT_INFO).map_err(Error::path("reading", MOUNT_INFO))
}

/// All file systems of a kind in it.
pub(crate) fn info_of_kind<'a>(table: &'a [u8], kind: &'a [u8]) -> impl Iterator<Item = MountInfo> + 'a {
    table.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // A varying number of fields ends with a dash.
        let found = fields.skip_while(|field| *field != b"-").nth(1)?;
        let point = PathBuf::from(OsString::from_vec(unescape(point)));
        let root = String::from_utf8_lossy(&unescape(root)).into_owned();
        (found == kind).then_some(MountInfo { point, root })
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

    const TABLE: &[u8] = b"tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
        cgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n\
        none /mnt cgroup2 rw 0 0\n";

    #[test]
    fn the_hierarchy_is_found_beside_version_1() {
        let found: Vec<_> = of_kind(TABLE, b"cgroup2").map(|mount| (mount.source, mount.point)).collect();
        let expected: [(&[u8], PathBuf); 2] =
            [(b"cgroup2", "/sys/fs/cgroup/uni fied".into()), (b"none", "/mnt".into())];
        assert_eq!(found, expected);
        assert!(of_kind(b"proc /proc proc rw 0 0\n", b"cgroup2").next().is_none());
    }

    #[test]
    fn the_directory_that_is_mounted_is_found_behind_any_number_of_fields() {
        let table = b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw\n\
            31 23 0:26 /../.. /host\\040x rw - cgroup2 none rw\n\
            32 23 0:27 / /tmp rw - tmpfs cgroup2 rw\n";
        let found: Vec<_> = info_of_kind(table, b"cgroup2").map(|mount| (mount.root, mount.point)).collect();
        assert_eq!(found, [("/".into(), "/sys/fs/cgroup".into()), ("/../..".into(), "/host x".into())]);
    }
}
