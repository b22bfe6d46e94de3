use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::datapath::mounts;

const OWN: &str = "/proc/thread-self/ns/net";

/// Opens network namespaces by their inode number.
///
/// The kernel has no list of them. What leads to one is a mount (the CNI's, in `/run/netns`), or a process in it: those
/// below the cgroup whose sockets are served, and their threads, which may be in another one each. A namespace with
/// neither is held by an open file only, and cannot be found.
#[derive(Debug)]
pub(super) struct Namespaces {
    cgroup: PathBuf,
    own: File,
    own_inode: u32,
}

/// What was found of what was looked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) opened: BTreeMap<u32, File>,
    /// Not found.
    pub(super) missing: BTreeSet<u32>,
    /// Processes below the cgroup that are not to be seen from here.
    pub(super) hidden: usize,
    /// What the kernel said when one could not be looked at.
    pub(super) refused: Option<io::Error>,
}

impl Namespaces {
    /// The thread's own namespace is where [`Self::leave`] leads.
    pub(super) fn new(cgroup: &Path) -> io::Result<Self> {
        let own = File::open(OWN)?;
        let own_inode = inode(&own.metadata()?);
        Ok(Self { cgroup: cgroup.to_owned(), own, own_inode })
    }

    /// Looks where it costs least first, and no further than needed.
    pub(super) fn find(&self, wanted: BTreeSet<u32>) -> Found {
        let mut found = Found { missing: wanted, ..Found::default() };
        if found.missing.remove(&self.own_inode)
            && let Ok(own) = self.own.try_clone()
        {
            found.opened.insert(self.own_inode, own);
        }
        if !found.missing.is_empty() {
            found.look_at_mounts();
        }
        for list in ["cgroup.procs", "cgroup.threads"] {
            if !found.missing.is_empty() {
                found.hidden = 0;
                found.look_at_processes(&self.cgroup, list);
            }
        }
        found
    }

    /// Back to where the thread was.
    pub(super) fn leave(&self) -> io::Result<()> {
        enter(&self.own)
    }
}

/// Moves the calling thread, and no other, into a network namespace. Needs `CAP_SYS_ADMIN`.
pub(super) fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

impl Found {
    fn look_at_mounts(&mut self) {
        let Ok(table) = mounts::read_info() else { return };
        for (number, path) in mounted(&table) {
            if self.missing.contains(&number) {
                self.take(number, &path);
            }
        }
    }

    /// The processes or threads of a cgroup and of those below it. One that ends meanwhile is none.
    fn look_at_processes(&mut self, cgroup: &Path, list: &str) {
        // Of a threaded cgroup the kernel only lists threads.
        let text = fs::read_to_string(cgroup.join(list))
            .or_else(|_| fs::read_to_string(cgroup.join("cgroup.threads")))
            .unwrap_or_default();
        for id in text.lines() {
            if id == "0" {
                self.hidden += 1;
                continue;
            }
            let path = PathBuf::from(format!("/proc/{id}/ns/net"));
            match fs::metadata(&path) {
                Ok(metadata) if self.missing.contains(&inode(&metadata)) => {
                    self.take(inode(&metadata), &path);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.refused = Some(error),
                _ => {}
            }
            if self.missing.is_empty() {
                return;
            }
        }
        let Ok(entries) = fs::read_dir(cgroup) else { return };
        for entry in entries.flatten() {
            if !self.missing.is_empty() && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.look_at_processes(&entry.path(), list);
            }
        }
    }

    /// Opens a namespace, if that is still the one at `path`.
    fn take(&mut self, number: u32, path: &Path) {
        match File::open(path).and_then(|file| Ok((inode(&file.metadata()?), file))) {
            Ok((opened, file)) if opened == number => {
                self.missing.remove(&number);
                self.opened.insert(number, file);
            }
            Ok(_) => {}
            Err(error) => self.refused = Some(error),
        }
    }
}

/// Network namespaces in a table of mounts, with where they are mounted.
fn mounted(table: &[u8]) -> impl Iterator<Item = (u32, PathBuf)> + '_ {
    mounts::info_of_kind(table, b"nsfs").filter_map(|mount| {
        let number = mount.root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
        Some((number, mount.point))
    })
}

/// The kernel numbers namespaces with 32 bits.
fn inode(metadata: &fs::Metadata) -> u32 {
    u32::try_from(metadata.ino()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_network_namespaces_are_found() {
        let table = b"22 1 0:21 / /proc rw - proc proc rw\n\
            90 22 0:4 net:[4026532281] /run/netns/cni-1\\040a rw shared:5 - nsfs nsfs rw\n\
            91 22 0:4 mnt:[4026532282] /run/snapd/ns rw - nsfs nsfs rw\n\
            92 22 0:4 net:[many] /run/netns/x rw - nsfs nsfs rw\n";
        let found: Vec<_> = mounted(table).collect();
        assert_eq!(found, [(4_026_532_281, PathBuf::from("/run/netns/cni-1 a"))]);
    }

    #[test]
    fn the_own_namespace_needs_no_search() {
        let namespaces = Namespaces::new(Path::new("/nowhere")).unwrap();
        let found = namespaces.find([namespaces.own_inode, 1].into());
        assert_eq!(found.opened.keys().copied().collect::<Vec<_>>(), [namespaces.own_inode]);
        assert_eq!(found.missing, [1].into());
    }
}
