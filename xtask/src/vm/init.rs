//! The first process of a guest.

mod loopback;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};

use super::guest::{AGENT, ARGUMENTS, DONE, LATE_TESTS, LATER_MODULES, MODULES, TESTS};

/// Begins the first line; the release of the kernel follows.
pub(super) const HELLO: &str = "Ferroute's tests on Linux ";

/// Type and place of each file system, in the order to mount them.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// What a service manager would grant.
const OPEN_FILES: u64 = 524_288;

/// Makes the machine ready, runs every test program, and switches the machine off.
///
/// Only for the first process of a guest, see [`is_guest`](super::is_guest()).
pub fn init() -> ! {
    match prepare().and_then(|()| test()) {
        Ok(failed) => println!("{DONE}{failed}"),
        // Without the last line the host knows that something went wrong.
        Err(error) => println!("init: {error:#}"),
    }
    system::power_off()
}

fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("making the folder {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {kind} at {place}"))?;
    }
    println!("{HELLO}{}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    load(MODULES)?;
    loopback::up().context("setting the loopback interface up")?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).context("raising the limit of open files")
}

fn load(folder: &str) -> Result<()> {
    for module in listed(folder)? {
        system::load_module(&module).with_context(|| format!("loading {}", module.display()))?;
    }
    Ok(())
}

/// Runs the test programs one after the other; how many failed.
fn test() -> Result<u32> {
    let arguments = fs::read_to_string(Path::new("/").join(ARGUMENTS)).context("reading the arguments")?;
    let arguments: Vec<&str> = arguments.split_terminator('\0').collect();
    let mut failed = 0;
    if !are_only_late(&arguments) {
        failed += run_all(&[&["--skip", LATE_TESTS], &arguments[..]].concat())?;
    }
    if arguments.is_empty() || arguments.iter().any(|argument| argument.contains(LATE_TESTS)) {
        load(LATER_MODULES)?;
        failed += run_all(&[LATE_TESTS])?;
    }
    Ok(failed)
}

/// Whether nothing else was asked for.
fn are_only_late(arguments: &[&str]) -> bool {
    !arguments.is_empty() && arguments.iter().all(|argument| argument.contains(LATE_TESTS))
}

fn run_all(arguments: &[&str]) -> Result<u32> {
    let mut failed = 0;
    for test in listed(TESTS)? {
        let start = Instant::now();
        let mut command = Command::new(&test);
        command.arg("--test-threads=1").args(arguments).env_clear();
        command.env("FERROUTE_AGENT", Path::new("/").join(AGENT));
        command.envs([("CI", "true"), ("PATH", "/bin"), ("HOME", "/tmp"), ("RUST_BACKTRACE", "1")]);
        command.env("FERROUTE_WHOLE_KERNEL", "true");
        // An emulated processor is slow: enough for everything to come about.
        command.envs([("FERROUTE_PACKETS", "100000"), ("FERROUTE_PACKETS_FEW_PORTS", "10000")]);
        let status = system::run(&mut command).with_context(|| format!("running {}", test.display()))?;
        println!("{}: {status}, {:.1} s", test.display(), start.elapsed().as_secs_f64());
        failed += u32::from(!status.success());
    }
    Ok(failed)
}

/// The files of a folder by their names; none if there is no such folder.
fn listed(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new("/").join(folder);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
