//! The bpffs directory in which maps and links outlive the agent.

mod bpffs;
mod cleanup;

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use proxy_common::LAYOUT_VERSION;

use super::{Error, sys, sys::MapShape};

pub use cleanup::cleanup;

/// Maps that belong to sockets: they are kept when the other maps change.
const SOCKET_MAPS: [&str; 2] = ["SOCKETS", "SOCKET_PEERS"];
/// Maps that belong to flows, and are kept likewise.
const FLOW_MAPS: [&str; 7] =
    ["FLOWS4", "FLOWS6", "NEW_FLOWS4", "NEW_FLOWS6", "FLOW_FILTER", "FRAGMENTS4", "FRAGMENTS6"];
const MAPS: &str = "maps-";
const SOCKETS: &str = "sockets-";
const FLOWS: &str = "flows-";
const CURRENT: &str = "current";
const CURRENT_FLOWS: &str = "current-flows";
const LINKS: &str = "links";

/// A directory on a bpffs: `links/HOOK`, `links/HOOK-ifINDEX`, `maps-HASH/NAME`, `sockets-HASH/NAME`,
/// `flows-HASH/NAME`, and `current` and `current-flows`, symbolic links to the maps that the links' programs use.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    /// Locked for as long as this agent lives.
    _lock: File,
}

/// Where the maps of one layout are pinned.
#[derive(Debug)]
pub(crate) struct Layout {
    maps: String,
    sockets: String,
    flows: String,
    root: PathBuf,
    shapes: Vec<(String, MapShape)>,
}

impl Pins {
    /// Makes `root` a directory on a bpffs, mounting one where there is none.
    pub(crate) fn prepare(root: &Path) -> Result<Self, Error> {
        bpffs::prepare(root)?;
        if bpffs::ends_with_container(root) {
            tracing::warn!(
                bpffs = %root.display(),
                "the node's bpffs is not mounted into this container: the agent has one of its own, which ends with \
                 the container, and from then until the next one is ready no Service is served; mount the node's \
                 /sys/fs/bpf (docs/configuration.md, \"In kube-proxy's place\")"
            );
        }
        if !is_ours(root)? {
            return Err(Error::NotOurs(root.to_owned()));
        }
        let links = root.join(LINKS);
        fs::create_dir_all(&links).map_err(Error::path("creating directory", links))?;
        let lock = lock(root)?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The pin of a hook's link.
    pub(crate) fn link(&self, hook: &str) -> PathBuf {
        link(&self.root, hook)
    }

    /// Names of all pinned links.
    pub(crate) fn links(&self) -> Result<Vec<String>, Error> {
        names(&self.root.join(LINKS))
    }

    /// The directories for maps of these shapes. They are made, and what is pinned there is checked.
    pub(crate) fn layout(&self, shapes: Vec<(String, MapShape)>) -> Result<Layout, Error> {
        let layout = Layout::new(self.root.clone(), shapes);
        for directory in layout.directories() {
            let directory = self.root.join(directory);
            fs::create_dir_all(&directory).map_err(Error::path("creating directory", directory))?;
        }
        for (name, shape) in &layout.shapes {
            check(&layout.path(name), shape)?;
        }
        Ok(layout)
    }

    /// The directory of the flow maps that are in use, when this layout has others.
    pub(crate) fn replaced_flows(&self, layout: &Layout) -> Option<PathBuf> {
        let current = fs::canonicalize(current_flows(&self.root).ok()?).ok()?;
        let new = fs::canonicalize(self.root.join(&layout.flows)).ok()?;
        Some(current).filter(|current| *current != new)
    }

    /// From now on the programs that are attached use this layout; maps of others are removed.
    pub(crate) fn switch_to(&self, layout: &Layout) -> Result<(), Error> {
        self.point(CURRENT, &layout.maps)?;
        self.point(CURRENT_FLOWS, &layout.flows)?;
        for name in names(&self.root)? {
            if is_map_directory(&name) && !layout.directories().contains(&name.as_str()) {
                let directory = self.root.join(name);
                fs::remove_dir_all(&directory).map_err(Error::path("removing old maps in", &directory))?;
                tracing::info!(directory = %directory.display(), "removed the maps of an earlier layout");
            }
        }
        Ok(())
    }

    /// Makes a symbolic link lead to a directory, in one step.
    fn point(&self, name: &str, to: &str) -> Result<(), Error> {
        let (link, new) = (self.root.join(name), self.root.join(format!("{name}-new")));
        if fs::read_link(&link).ok().as_deref() == Some(Path::new(to)) {
            return Ok(());
        }
        let _leftover = fs::remove_file(&new);
        symlink(to, &new).and_then(|()| fs::rename(&new, &link)).map_err(Error::path("pointing", &link))
    }
}

/// Locks the directory against other agents. One that is being killed gets a moment to go.
fn lock(root: &Path) -> Result<File, Error> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let directory = File::open(root).map_err(Error::path("opening", root))?;
    let start = Instant::now();
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(root.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::path("locking", root)(error)),
        }
    }
}

/// The pin of a link below `root`.
pub(crate) fn link(root: &Path, name: &str) -> PathBuf {
    root.join(LINKS).join(name)
}

/// The directory with the maps that are in use now.
///
/// # Errors
/// [`Error::NothingPinned`].
pub(crate) fn current_maps(root: &Path) -> Result<PathBuf, Error> {
    current(root, CURRENT)
}

/// The directory with the flow maps that are in use now.
///
/// # Errors
/// [`Error::NothingPinned`].
pub(crate) fn current_flows(root: &Path) -> Result<PathBuf, Error> {
    current(root, CURRENT_FLOWS)
}

fn current(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let current = root.join(name);
    if current.is_dir() { Ok(current) } else { Err(Error::NothingPinned(root.to_owned())) }
}

impl Layout {
    fn new(root: PathBuf, shapes: Vec<(String, MapShape)>) -> Self {
        let name = |prefix: &'static str| {
            let maps: Vec<_> = shapes.iter().filter(|(name, _)| group(name) == prefix).collect();
            format!("{prefix}{:08x}", signature(&maps))
        };
        Self { maps: name(MAPS), sockets: name(SOCKETS), flows: name(FLOWS), root, shapes }
    }

    fn directories(&self) -> [&str; 3] {
        [&self.maps, &self.sockets, &self.flows]
    }

    /// Directory of all maps but those that belong to sockets or flows.
    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join(&self.maps)
    }

    /// Where a map is pinned.
    pub(crate) fn path(&self, map: &str) -> PathBuf {
        let directory = match group(map) {
            SOCKETS => &self.sockets,
            FLOWS => &self.flows,
            _ => &self.maps,
        };
        self.root.join(directory).join(map)
    }

    /// Names of the maps.
    pub(crate) fn maps(&self) -> impl Iterator<Item = &str> {
        self.shapes.iter().map(|(name, _)| name.as_str())
    }
}

/// The beginning of the name of a map's directory.
fn group(map: &str) -> &'static str {
    if SOCKET_MAPS.contains(&map) {
        SOCKETS
    } else if FLOW_MAPS.contains(&map) {
        FLOWS
    } else {
        MAPS
    }
}

/// FNV-1a over everything that two agents must agree on to share maps.
fn signature(maps: &[&(String, MapShape)]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    add(&LAYOUT_VERSION.to_le_bytes());
    for (name, shape) in maps {
        add(name.as_bytes());
        add(&[0]);
        shape.parts().iter().for_each(|part| add(&part.to_le_bytes()));
    }
    hash
}

/// Refuses a pin that is not a map of this shape; one that is not there is fine.
fn check(path: &Path, shape: &MapShape) -> Result<(), Error> {
    let map = match sys::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(Error::path("opening", path))?,
    };
    // Asking a program or a link for a map's information gives another shape, or an error: both are told.
    let found = sys::map_shape(map).map_err(Error::path("inspecting", path))?;
    if found.parts() == shape.parts() {
        return Ok(());
    }
    Err(Error::WrongPin { path: path.to_owned(), found: found.to_string(), expected: shape.to_string() })
}

/// Whether a directory below the root holds maps of an agent, by its name.
fn is_map_directory(name: &str) -> bool {
    let signature = [MAPS, SOCKETS, FLOWS].into_iter().find_map(|prefix| name.strip_prefix(prefix));
    signature.is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// False when `root` has links but no maps: an agent makes its maps first and removes them last, so the
/// links are not an agent's.
fn is_ours(root: &Path) -> Result<bool, Error> {
    Ok(names(&root.join(LINKS))?.is_empty() || names(root)?.iter().any(|name| is_map_directory(name)))
}

/// Names in a directory, sorted; none when it is not there.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(Error::path("listing", directory))?,
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(max_entries: u32) -> Layout {
        let shapes = [
            ("FRONTENDS4", MapShape::new(1, 8, 40, max_entries, 1)),
            ("FLOWS4", MapShape::new(1, 16, 40, 100, 1)),
            ("SOCKETS", MapShape::new(24, 4, 48, 0, 1)),
        ];
        Layout::new("/bpf".into(), shapes.map(|(name, shape)| (name.to_owned(), shape)).into())
    }

    #[test]
    fn only_an_agents_directories_are_taken_for_its_own() {
        let name = layout(10).directory().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            is_map_directory(&name)
                && is_map_directory("sockets-0123abcd")
                && is_map_directory("flows-0123abcd")
        );
        for foreign in ["maps-", "maps-of-somebody", "maps-0123abcde", "sockets-old", "links", "current"] {
            assert!(!is_map_directory(foreign), "{foreign}");
        }
    }

    #[test]
    fn links_without_maps_are_somebody_elses() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir(root.path().join(name)).unwrap();
        make(LINKS);
        assert!(is_ours(root.path()).unwrap(), "an agent that was killed early leaves this");
        make("links/theirs");
        assert!(!is_ours(root.path()).unwrap());
        make("maps-0123abcd");
        assert!(is_ours(root.path()).unwrap());
    }

    #[test]
    fn another_capacity_is_another_directory_but_for_sockets_and_flows() {
        let (one, two) = (layout(10), layout(20));
        assert_ne!(one.path("FRONTENDS4"), two.path("FRONTENDS4"));
        assert_eq!(one.path("SOCKETS"), two.path("SOCKETS"));
        assert_eq!(one.path("FLOWS4"), two.path("FLOWS4"));
        assert_eq!(one.path("FRONTENDS4"), layout(10).path("FRONTENDS4"));
        let name = one.directory().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("maps-") && name.len() == "maps-".len() + 8);
    }
}
