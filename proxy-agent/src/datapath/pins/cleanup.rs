use std::{fs, io, path::Path};

use super::{CURRENT, CURRENT_FLOWS, LINKS, bpffs, is_map_directory, is_ours, lock, names};
use crate::datapath::{Error, attach, cgroup, sys};

/// Detaches and removes all that an agent pinned in `root`, and unmounts the bpffs that an agent mounted
/// exactly there; removes the agent's filters from the links of this network namespace, which have no pins.
/// Returns what was removed, one line each; nothing when there was nothing.
///
/// Established connections go on: their packets do not pass the programs. New ones to Services fail.
///
/// # Errors
/// [`Error::InUse`] while an agent runs there: it would go on as if it were attached. What could not be
/// removed, by path.
pub fn cleanup(root: &Path) -> Result<Vec<String>, Error> {
    let mut removed = pins(root)?;
    let filters = attach::remove_filters().map_err(Error::path("removing filters of links, for", root))?;
    removed.extend(filters);
    if cgroup::unmount().map_err(Error::path("unmounting the cgroup hierarchy, for", root))? {
        removed.push("the mount of the cgroup hierarchy".to_owned());
    }
    Ok(removed)
}

fn pins(root: &Path) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    if !root.exists() || !bpffs::is_on_bpffs(root) {
        return Ok(removed);
    }
    if !is_ours(root)? {
        return Ok(removed);
    }
    // Not held on to: an open directory would keep the bpffs from being unmounted.
    drop(lock(root)?);
    let links = root.join(LINKS);
    let mut all = names(&links)?;
    // What was sent to an endpoint just now is still answered by the Service.
    all.sort_by_key(|name| translates_answers(name));
    for name in all {
        let pin = links.join(&name);
        if let Ok(link) = sys::open_pin(&pin) {
            // Before 5.9 a link goes with its last reference, which is the pin as a rule.
            let _unsupported = sys::link_detach(link);
        }
        fs::remove_file(&pin).map_err(Error::path("removing", &pin))?;
        removed.push(format!("link {name}"));
    }
    remove_dir(&links)?;
    for link in [CURRENT, CURRENT_FLOWS] {
        let _absent = fs::remove_file(root.join(link));
    }
    for name in names(root)? {
        if !is_map_directory(&name) {
            continue;
        }
        let directory = root.join(&name);
        for map in names(&directory)? {
            let pin = directory.join(&map);
            fs::remove_file(&pin).map_err(Error::path("removing", &pin))?;
            removed.push(format!("map {name}/{map}"));
        }
        remove_dir(&directory)?;
    }
    // The kernel puts files of its own (`maps.debug`) into each bpffs; only it can use a dot in a name.
    let empty = names(root)?.iter().all(|name| name.contains('.'));
    // With something else in it, it is somebody else's too.
    if empty && bpffs::is_our_mount(root) {
        rustix::mount::unmount(root, rustix::mount::UnmountFlags::empty())
            .map_err(|error| Error::path("unmounting", root)(error.into()))?;
        removed.push(format!("mount {}", root.display()));
        remove_dir(root)?;
    } else if empty && remove_dir(root).is_ok() {
        // A mount point of somebody else's stays.
        removed.push(format!("directory {}", root.display()));
    }
    Ok(removed)
}

/// Whether a link's program makes answers of endpoints look like the Service's.
fn translates_answers(link: &str) -> bool {
    ["getpeername", "recvmsg", "uplink_egress", "workload_egress"].iter().any(|hook| link.starts_with(hook))
}

fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::path("removing directory", path)),
    }
}
