//! The end-to-end tests on other kernels: boots Debian's kernels in QEMU with this program as the first
//! process of each, which runs the tests there.
//!
//! QEMU emulates the processor (TCG), so it works on every machine, also inside another virtual machine.
//! What is fetched and unpacked stays under `target/vm`; remove that folder to get newer kernels.

mod apt;
mod artifacts;
mod cpio;
mod guest;
mod init;
mod initramfs;
mod kernel;
mod modules;
mod outcome;
mod qemu;
mod requirements;
mod share;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::artifacts::Artifacts;
use self::kernel::Kernel;
use self::outcome::Outcome;
pub use self::{guest::is_guest, init::init};
use crate::progress::{say, step};
use crate::workspace::Workspace;

/// The oldest kernel that the programs support, and two that are in wide use.
pub const MATRIX: [&str; 3] = ["5.10", "6.1", "6.12"];

/// What to run, and on which kernels.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kernel series such as `5.10`; [`MATRIX`] if there is none.
    pub kernels: Vec<String>,
    /// Arguments for each test program.
    pub arguments: Vec<String>,
    /// How long one kernel may take, from the start of QEMU to the end of the last test.
    pub timeout: Duration,
}

/// Builds everything and runs the tests on each kernel; an error if one kernel fails.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("`cargo xtask vm` knows only x86-64 kernels, and its guests run what this machine builds");
    }
    requirements::meet()?;
    let folder = workspace.target_dir().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let artifacts = artifacts::build(workspace)?;
    let series: Vec<&str> = if options.kernels.is_empty() {
        MATRIX.to_vec()
    } else {
        options.kernels.iter().map(String::as_str).collect()
    };
    let kernels = step("kernels", || {
        let kernels = kernel::provide(&folder, &series)?;
        let names: Vec<_> = kernels.iter().map(|kernel| kernel.release.as_str()).collect();
        let summary = names.join(", ");
        Ok((kernels, summary))
    })?;

    let outcomes: Vec<_> = kernels
        .into_iter()
        .map(|kernel| test(&folder, kernel, &artifacts, options))
        .collect::<Result<_>>()?;
    for (kernel, outcome, log) in outcomes.iter().filter(|(_, outcome, _)| !outcome.passed()) {
        say(format_args!("{}: {outcome}; the end of {}:", kernel.release, log.display()));
        eprintln!("{}", qemu::tail(log)?);
    }
    let results = || outcomes.iter().map(|(kernel, outcome, _)| (kernel, outcome));
    print!("{}\n{}", table::render_tests(results()), table::render(results()));
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome, _)| !outcome.passed()).collect();
    if !failed.is_empty() {
        let names: Vec<_> = failed.iter().map(|(kernel, ..)| kernel.release.as_str()).collect();
        bail!("not every test passed on {}; the logs are in {}", names.join(", "), folder.display());
    }
    Ok(())
}

fn test(
    folder: &Path,
    kernel: Kernel,
    artifacts: &Artifacts,
    options: &Options,
) -> Result<(Kernel, Outcome, PathBuf)> {
    let log = folder.join(format!("{}.log", kernel.release));
    let outcome = step(&format!("tests on {}", kernel.release), || {
        let initramfs = folder.join(format!("{}.cpio", kernel.release));
        initramfs::write(&initramfs, &kernel, artifacts, &options.arguments)?;
        let outcome = qemu::boot(&kernel, &initramfs, &log, options.timeout)?;
        let summary = outcome.to_string();
        Ok((outcome, summary))
    })?;
    Ok((kernel, outcome, log))
}
