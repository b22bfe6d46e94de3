use std::{io, path::PathBuf};

use thiserror::Error;

/// What went wrong with the kernel side, to which object, and what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The agent was compiled before the eBPF programs were.
    #[error("this proxy-agent was built without the eBPF object: build with `cargo xtask build`")]
    NoObject,
    /// The embedded object is not what the agent expects.
    #[error("the embedded eBPF object: {0}: rebuild with `cargo xtask build`")]
    Object(String),
    /// aya could not create the maps or take the programs in.
    #[error("loading the eBPF object (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program.
    #[error("loading program {program}: the kernel must be 5.10 or newer, with CONFIG_CGROUP_BPF")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: aya::programs::ProgramError,
    },
    /// Something about a pinned object or the directory of one.
    #[error("{doing} {}", path.display())]
    Path {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A pin that is not the map it should be.
    #[error(
        "{} is not the map that this proxy-agent expects there (it has {found}, expected {expected}): \
         `proxy-agent cleanup` removes it",
        path.display()
    )]
    WrongPin {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A map of another layout than the agent's.
    #[error("map {map} {problem}: rebuild agent and eBPF object together with `cargo xtask build`")]
    Layout {
        /// Name of the map.
        map: &'static str,
        /// What is different.
        problem: String,
    },
    /// A system call on a map failed.
    #[error("{doing} map {map}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The system has no room for another thread.
    #[error("starting the thread that {what}")]
    Thread {
        /// Its work.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An entry that cannot be one of ours.
    #[error(
        "map {map} is damaged: the entry of key {key} is not a valid value; `proxy-agent cleanup` and a new \
         start make the maps again"
    )]
    Damaged {
        /// Name of the map.
        map: &'static str,
        /// The key, as text.
        key: String,
    },
    /// Too few ports for packets that are sent in a client's place.
    #[error("{0}: name a range that no socket of this node uses with --source-ports FIRST-LAST")]
    SourcePorts(String),
    /// The cgroup of the whole node cannot be found.
    #[error(
        "{without}, and the agent cannot mount what is missing ({why_not}): in a pod, mount the host's \
         /sys/fs/cgroup as a hostPath volume, at /host/sys/fs/cgroup for example, where it is found; on a host \
         with cgroup version 1, `mount -t cgroup2 none /sys/fs/cgroup/unified`; or name a directory with --cgroup"
    )]
    NoCgroup {
        /// What there is instead.
        without: String,
        /// Why the agent could not mount it.
        why_not: String,
    },
    /// A directory that is not a cgroup.
    #[error(
        "{} is not a directory of a cgroup v2 hierarchy: {what}; name one with --cgroup ({instead}), or leave the flag \
         out: the node's is found by itself",
        path.display()
    )]
    NotACgroup {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: String,
        /// Where there is one.
        instead: String,
    },
    /// bpffs cannot be had where it was asked for.
    #[error(
        "mounting bpffs at {}: mount it yourself (`mount -t bpf bpf {}`), or name a directory of a bpffs with --bpffs",
        .path.display(), .path.display()
    )]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Links that no agent made would be removed.
    #[error(
        "{} holds links of another program: name a directory of its own with --bpffs, such as {}",
        .0.display(), .0.join("ferroute").display()
    )]
    NotOurs(PathBuf),
    /// Two agents would overwrite each other's maps.
    #[error(
        "another proxy-agent uses {}: stop it first, or name another directory with --bpffs",
        .0.display()
    )]
    InUse(PathBuf),
    /// Nothing to look at.
    #[error(
        "nothing is pinned in {}: is `proxy-agent run` set up on this node, with the same --bpffs?",
        .0.display()
    )]
    NothingPinned(PathBuf),
    /// A hook could not be taken over.
    #[error("attaching {hook} to cgroup {}: {hint}", cgroup.display())]
    Attach {
        /// Name of the hook.
        hook: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
        /// What to look at.
        hint: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was being done to `path`.
    pub(crate) fn path(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { doing, path, source }
    }

    /// For `map_err`: what was being done to `map`.
    pub(crate) fn map(doing: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Map { map, doing, source }
    }
}
