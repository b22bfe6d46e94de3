//! Builds everything: toolchain, eBPF object, agent.

mod elf;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::ebpf;
use crate::progress::{step, stream};
use crate::toolchain::{Purpose, Toolchain};
use crate::workspace::Workspace;

/// Builds the eBPF object and the agent that embeds it, installing what the machine lacks for `purpose`.
/// The path is that of the agent.
pub fn everything(workspace: &Workspace, purpose: Purpose) -> Result<PathBuf> {
    let toolchain = Toolchain::ready(workspace, purpose)?;
    ebpf::build(workspace, &toolchain)?;
    agent(workspace)
}

/// The whole workspace is built, not only the agent: with one package alone cargo would settle on fewer
/// features of the dependencies, and compile most of them a second time for the tests.
fn agent(workspace: &Workspace) -> Result<PathBuf> {
    step("agent", || {
        stream(workspace.host_cargo("build").arg("--bins"))?;
        let path = workspace.agent();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if !elf::is_static(&bytes).with_context(|| format!("looking at {}", path.display()))? {
            bail!(
                "{} needs a dynamic loader, so it would not run in an empty container image; \
                 is `-C target-feature` set in a cargo config of yours?",
                path.display()
            );
        }
        let size = bytes.len() as f64 / f64::from(1 << 20);
        Ok((path.clone(), format!("{}, static, {size:.1} MiB", path.display())))
    })
}
