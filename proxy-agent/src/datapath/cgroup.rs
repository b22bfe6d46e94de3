//! The cgroup at which the programs for sockets stand: whatever is below it is served.

mod choose;
mod evidence;
mod mount;

use std::{
    fmt,
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use self::choose::{Choice, choose};
use super::Error;

pub(crate) use mount::unmount;

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;

/// The cgroup whose processes' sockets are served, with all cgroups below it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
    pub(crate) directory: File,
    /// What the kernel calls the cgroup by.
    pub(crate) id: u64,
    pub(crate) because: Because,
}

/// Why a cgroup is the one of the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// `--cgroup` says so.
    Given,
    /// It is the root of the kernel's hierarchy.
    Root,
    /// It is the topmost that is mounted, and above all that this container sees as its own: the root of a node that is
    /// itself a container, as those of kind are.
    Above,
    /// It is the root of a container in which an init system runs, or the agent in a cgroup of its own: such a node, seen
    /// from the inside.
    Node,
    /// The agent mounted it, as process 1 sees it.
    Mounted,
    /// There is no other: it is only that of the agent's own container.
    Container,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "--cgroup names it",
            Self::Root => "it is the root of the hierarchy",
            Self::Above => "it is the topmost mounted here: the node is itself a container",
            Self::Node => "the agent runs on a node that is itself a container, and it is that one's root",
            Self::Container => "it is the container's own, and there is no other",
            Self::Mounted => "it was not mounted here, so the agent mounted it",
        })
    }
}

impl Cgroup {
    /// Opens the cgroup at `path`, or that of the whole node for `None`; the container's own where that cannot be
    /// found and `or_own` says that it will do.
    pub(crate) fn open(path: Option<&Path>, or_own: bool) -> Result<Self, Error> {
        let Some(path) = path else {
            let (path, because) = of_node().or_else(|error| if or_own { own(error) } else { Err(error) })?;
            return Self::at(path, because);
        };
        let cgroup = Self::at(path.to_owned(), Because::Given)?;
        let evidence = evidence::read()?;
        if evidence.is_only_the_containers(cgroup.id) {
            tracing::warn!(
                cgroup = %path.display(),
                "--cgroup names what this container sees as the root, but is its own cgroup: only the container itself is \
                 served; mount the host's /sys/fs/cgroup, at /host/sys/fs/cgroup for example"
            );
        }
        Ok(cgroup)
    }

    fn at(path: PathBuf, because: Because) -> Result<Self, Error> {
        let refused = |what: String| Error::NotACgroup { path: path.clone(), what, instead: mounted() };
        let directory =
            File::open(&path).map_err(|error| refused(format!("it cannot be opened ({error})")))?;
        let kind = rustix::fs::fstatfs(&directory)
            .map_err(|error| Error::path("inspecting cgroup", &path)(error.into()))?;
        match u64::try_from(kind.f_type) {
            Ok(CGROUP2_SUPER_MAGIC) => {}
            Ok(CGROUP_SUPER_MAGIC) => return Err(refused("it is of cgroup version 1".to_owned())),
            _ => return Err(refused("it is on no cgroup file system".to_owned())),
        }
        let metadata = directory.metadata().map_err(Error::path("inspecting cgroup", &path))?;
        if !metadata.is_dir() {
            return Err(refused("it is a file".to_owned()));
        }
        Ok(Self { path, directory, id: metadata.ino(), because })
    }
}

/// The cgroup of the whole node, as it is to be found from here, and why it is that. Mounts it where it has to.
///
/// # Errors
/// [`Error::NoCgroup`], which says what to mount.
pub fn of_node() -> Result<(PathBuf, Because), Error> {
    let evidence = evidence::read()?;
    let without = match choose(&evidence) {
        Choice::Take(path, because) => return Ok((path, because)),
        Choice::Without(without) => without,
    };
    match mount::mount(evidence.first_is_outside()) {
        Ok(path) => Ok((path, Because::Mounted)),
        Err(why_not) => Err(Error::NoCgroup { without: without.to_string(), why_not }),
    }
}

/// The container's own cgroup, in which there is hardly anybody else.
fn own(error: Error) -> Result<(PathBuf, Because), Error> {
    let Some(own) = evidence::read()?.mounts.into_iter().next() else { return Err(error) };
    tracing::warn!(
        "{error}; until then pods are served by programs on their links, and processes of the host not at all \
         (docs/configuration.md, \"In kube-proxy's place\")"
    );
    Ok((own.point, Because::Container))
}

/// Where cgroup v2 is mounted, for an error.
fn mounted() -> String {
    let mounts = evidence::read().map(|evidence| evidence.mounts).unwrap_or_default();
    let points: Vec<String> = mounts.iter().map(|mount| mount.point.display().to_string()).collect();
    if points.is_empty() { "none is mounted".to_owned() } else { format!("mounted at {}", points.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cgroup_is_refused_with_a_hint() {
        for (path, why) in [("/proc", "no cgroup file system"), ("/does/not/exist", "No such file")] {
            let error = Cgroup::open(Some(Path::new(path)), true).unwrap_err().to_string();
            assert!(error.contains("--cgroup") && error.contains(path) && error.contains(why), "{error}");
        }
    }
}
