//! Style: format, clippy, documentation. Whatever is reported is an error.

use anyhow::{Context as _, Result};

use crate::ebpf;
use crate::progress::{capture, step, stream};
use crate::toolchain::{Purpose, Toolchain};
use crate::workspace::Workspace;

/// Runs every check; the first that finds something ends it.
pub fn run(workspace: &Workspace) -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        capture(workspace.cargo().args([tool, "--version"]))
            .with_context(|| format!("`cargo {tool}` is missing: `rustup component add {component}`"))?;
    }
    step("format", || {
        stream(workspace.cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` mends it")?;
        clean()
    })?;
    let toolchain = Toolchain::ready(workspace, Purpose::Check)?;
    // The agent's build script wants the object, whoever compiles the agent.
    ebpf::build(workspace, &toolchain)?;
    step("clippy for eBPF", || ebpf::clippy(workspace, &toolchain).and_then(|()| clean()))?;
    step("clippy", || {
        stream(workspace.host_cargo("clippy").args(["--all-targets", "--", "--deny", "warnings"]))?;
        clean()
    })?;
    step("documentation", || {
        let mut doc = workspace.host_cargo("doc");
        stream(doc.args(["--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
        clean()
    })
}

fn clean() -> Result<((), String)> {
    Ok(((), "clean".to_owned()))
}
