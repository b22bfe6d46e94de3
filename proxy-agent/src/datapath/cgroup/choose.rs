//! Which of the mounted cgroups is that of the whole node. Pure.

use std::{fmt, path::PathBuf};

use super::Because;

/// The kernel numbers the directories of the hierarchy from 1, its root.
const ROOT: u64 = 1;

/// What is known of the cgroups here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Every mount of a cgroup v2 file system.
    pub(super) mounts: Vec<Mount>,
    /// The cgroup of this process, from the root of its cgroup namespace.
    pub(super) own: Option<String>,
    /// The same of process 1, which is the container's own when it has a PID namespace.
    pub(super) first: Option<String>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// Which directory of the hierarchy is mounted, from the root of the cgroup namespace: `/..` is above it.
    pub(super) root: String,
    /// What the kernel calls it by.
    pub(super) id: u64,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Take(PathBuf, Because),
    Without(Without),
}

/// What there is instead of the node's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// No mount.
    Mount,
    /// Only the container's own cgroup, or a part of the hierarchy.
    More(PathBuf),
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount => f.write_str("no cgroup v2 hierarchy is mounted here"),
            Self::More(point) => {
                write!(
                    f,
                    "{} has only this container's own cgroup, so nobody else would be served",
                    point.display()
                )
            }
        }
    }
}

pub(super) fn choose(evidence: &Evidence) -> Choice {
    let mounts = &evidence.mounts;
    if let Some(root) = mounts.iter().find(|mount| mount.id == ROOT) {
        return Choice::Take(root.point.clone(), Because::Root);
    }
    // The first of the highest.
    let above = mounts.iter().filter(|mount| mount.above() > 0).rev().max_by_key(|mount| mount.above());
    if let Some(above) = above {
        return Choice::Take(above.point.clone(), Because::Above);
    }
    match mounts.iter().find(|mount| mount.root == "/") {
        Some(node) if evidence.is_a_node() => Choice::Take(node.point.clone(), Because::Node),
        _ => Choice::Without(match mounts.first() {
            Some(part) => Without::More(part.point.clone()),
            None => Without::Mount,
        }),
    }
}

impl Evidence {
    /// Whether the root of the cgroup namespace is that of a node which is itself a container. An ordinary container's
    /// processes are at its root; on a node an init system has put them below, as the kernel wants it.
    fn is_a_node(&self) -> bool {
        let below = |path: &Option<String>| {
            path.as_deref()
                .is_some_and(|path| path != "/" && path.starts_with('/') && !path.starts_with("/.."))
        };
        !self.first_is_outside() && (below(&self.own) || below(&self.first))
    }

    /// Whether process 1 is in none of the cgroups that are to be seen from here.
    pub(super) fn first_is_outside(&self) -> bool {
        self.first.as_deref().is_some_and(|path| path.starts_with("/.."))
    }

    /// Whether a cgroup is what a container sees as the root, and nothing else is in there.
    pub(super) fn is_only_the_containers(&self, id: u64) -> bool {
        let is_namespace_root =
            self.mounts.iter().any(|mount| mount.root == "/" && mount.id == id && id != ROOT);
        is_namespace_root && !self.is_a_node()
    }
}

impl Mount {
    /// How many directories above the root of the namespace it is; 0 for what is below or beside it.
    fn above(&self) -> usize {
        let parts = || self.root.split('/').filter(|part| !part.is_empty());
        if parts().all(|part| part == "..") { parts().count() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, root: &str, id: u64) -> Mount {
        Mount { point: point.into(), root: root.into(), id }
    }

    fn evidence(mounts: &[Mount], own: &str, first: &str) -> Evidence {
        Evidence { mounts: mounts.to_vec(), own: Some(own.into()), first: Some(first.into()) }
    }

    #[test]
    fn every_layout_of_a_node() {
        let unified = "/sys/fs/cgroup";
        let host = "/host/sys/fs/cgroup";
        let take = |point: &str, because| Choice::Take(point.into(), because);
        let private = || Choice::Without(Without::More(unified.into()));
        let rows = [
            (
                "a host",
                evidence(&[mount(unified, "/", 1)], "/system.slice/a.service", "/init.scope"),
                take(unified, Because::Root),
            ),
            (
                "a host with version 1",
                evidence(&[mount("/sys/fs/cgroup/unified", "/", 1)], "/", "/"),
                take("/sys/fs/cgroup/unified", Because::Root),
            ),
            (
                "a privileged container: the host's namespace",
                evidence(&[mount(unified, "/", 1)], "/kubepods.slice/pod1", "/kubepods.slice/pod1"),
                take(unified, Because::Root),
            ),
            ("a container", evidence(&[mount(unified, "/", 77)], "/", "/"), private()),
            (
                "a container that sees the host's processes",
                evidence(&[mount(unified, "/", 77)], "/", "/../../../init.scope"),
                private(),
            ),
            (
                "a container in a cgroup below its root, that sees the host's processes",
                evidence(&[mount(unified, "/", 77)], "/main", "/../../init.scope"),
                private(),
            ),
            (
                "a container with the host's mount",
                evidence(&[mount(unified, "/", 77), mount(host, "/../../..", 1)], "/", "/"),
                take(host, Because::Root),
            ),
            (
                "a container with the host's namespace, and of the hierarchy only its own part",
                evidence(
                    &[mount(unified, "/kubepods.slice/pod1", 77)],
                    "/kubepods.slice/pod1",
                    "/init.scope",
                ),
                private(),
            ),
            (
                "a pod on a kind node, with the node's mount",
                evidence(&[mount(unified, "/", 77), mount(host, "/../../..", 40)], "/", "/"),
                take(host, Because::Above),
            ),
            (
                "the same with a part of the node's hierarchy as well",
                evidence(
                    &[
                        mount("/a", "/..", 50),
                        mount(host, "/../../..", 40),
                        mount("/b", "/../../../..//x", 60),
                    ],
                    "/",
                    "/",
                ),
                take(host, Because::Above),
            ),
            (
                "on a kind node, as a service",
                evidence(&[mount(unified, "/", 40)], "/system.slice/ferroute.service", "/init.scope"),
                take(unified, Because::Node),
            ),
            (
                "on a kind node, as docker exec",
                evidence(&[mount(unified, "/", 40)], "/", "/init.scope"),
                take(unified, Because::Node),
            ),
            (
                "a privileged pod on a kind node",
                evidence(&[mount(unified, "/", 40)], "/kubelet.slice/pod1", "/kubelet.slice/pod1"),
                take(unified, Because::Node),
            ),
            ("version 1 alone", evidence(&[], "/", "/"), Choice::Without(Without::Mount)),
        ];
        for (layout, evidence, expected) in rows {
            assert_eq!(choose(&evidence), expected, "{layout}");
        }
    }

    #[test]
    fn a_containers_own_root_is_told_from_others() {
        let container = evidence(&[mount("/sys/fs/cgroup", "/", 77), mount("/host", "/..", 1)], "/", "/");
        assert!(container.is_only_the_containers(77));
        assert!(!container.is_only_the_containers(1));
        assert!(!evidence(&[mount("/sys/fs/cgroup", "/", 1)], "/", "/").is_only_the_containers(1));
        let kind = evidence(&[mount("/sys/fs/cgroup", "/", 40)], "/", "/init.scope");
        assert!(!kind.is_only_the_containers(40));
    }
}
