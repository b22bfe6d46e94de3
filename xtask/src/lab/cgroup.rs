//! Control groups of the lab. The kernel runs socket programs for the cgroup of the task that
//! made the socket, so a node of the lab is a cgroup: its agent attaches there, and threads that
//! act as its pods are moved there. Threads of one process can only be in different cgroups below a
//! common *threaded* parent: that is the lab's root, one a process.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How every directory that a lab makes begins; what follows is the process id.
pub(super) const PREFIX: &str = "ferroute-lab-";

/// A thread that has ended leaves its cgroup a moment after join() has returned.
const EMPTY_WITHIN: Duration = Duration::from_secs(3);

/// The mount point of the unified hierarchy: `/sys/fs/cgroup`, or a folder below it on hybrid hosts.
pub(super) fn mount_point() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    found.context("no cgroup v2 is mounted here: the lab needs one (mount -t cgroup2 none DIR)")
}

/// The lab's cgroup root, with the whole process inside.
#[derive(Debug)]
pub(super) struct Root {
    mount: PathBuf,
    path: PathBuf,
    /// Where the process was and goes back to.
    home: PathBuf,
}

impl Root {
    /// Makes the root and moves the process there.
    pub(super) fn enter() -> anyhow::Result<Self> {
        let mount = mount_point()?;
        sweep(&mount);
        let home = mount.join(current("self")?);
        let path = mount.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making the lab's cgroup {}", path.display()))?;
        let root = Self { mount, path, home };
        move_process(&root.path)?;
        Ok(root)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread up to the root if it is in `below`.
    pub(super) fn leave(&self, below: &Path) -> anyhow::Result<()> {
        if self.mount.join(current("thread-self")?).starts_with(below) {
            move_this_thread(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // A service manager may have removed the old cgroup meanwhile, as it was empty.
        let moved = move_process(&self.home).or_else(|_| move_process(&self.mount));
        let left = moved.and_then(|()| remove_tree(&self.path));
        if let Err(error) = left {
            eprintln!("lab: leaving the cgroup {} behind: {error:#}", self.path.display());
        }
    }
}

/// Makes a child that threads can be moved to.
pub(super) fn make_threaded(path: &Path) -> anyhow::Result<()> {
    fs::create_dir(path).with_context(|| format!("making the cgroup {}", path.display()))?;
    fs::write(path.join("cgroup.type"), "threaded")
        .with_context(|| format!("making the cgroup {} a threaded one", path.display()))
}

/// Moves the calling thread, and no other.
pub(super) fn move_this_thread(path: &Path) -> anyhow::Result<()> {
    let tid = nix::unistd::gettid();
    fs::write(path.join("cgroup.threads"), tid.to_string())
        .with_context(|| format!("moving a thread to the cgroup {}", path.display()))
}

/// Removes a cgroup and those below, waiting a little for threads that are just ending.
pub(super) fn remove_tree(path: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", path.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => return outcome.with_context(|| format!("removing {}", path.display())),
        }
    }
}

/// The cgroup of this process ("self") or thread ("thread-self"), relative to the mount point.
fn current(who: &str) -> anyhow::Result<String> {
    let all = fs::read_to_string(format!("/proc/{who}/cgroup")).context("reading the own cgroup in /proc")?;
    let unified = all.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = unified.context("this process is in no cgroup v2")?;
    if path.split('/').any(|part| part == "..") {
        bail!("this process is in the cgroup /{path}, outside of what is mounted here");
    }
    Ok(path.to_owned())
}

fn move_process(path: &Path) -> anyhow::Result<()> {
    fs::write(path.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("moving this process to the cgroup {}", path.display()))
}

/// Removes what labs left that were killed: their process is gone and their cgroup is empty.
fn sweep(mount: &Path) {
    let Ok(entries) = fs::read_dir(mount) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|id| id.parse::<u32>().ok());
        let dead = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let empty = fs::read_to_string(entry.path().join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 0"));
        if dead
            && empty
            && let Err(error) = remove_tree(&entry.path())
        {
            eprintln!("lab: cannot remove what an earlier lab left: {error:#}");
        }
    }
}
