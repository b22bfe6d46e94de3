//! Style: format, clippy, documentation. Whatever is reported is an error.

use anyhow::{Context as _, Result, bail};

use crate::ebpf;
use crate::progress::{capture, step, stream};
use crate::toolchain::{Purpose, Toolchain};
use crate::workspace::Workspace;

/// Runs every check, also after one of them found something.
pub fn run(workspace: &Workspace) -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        capture(workspace.cargo().args([tool, "--version"]))
            .with_context(|| format!("`cargo {tool}` is missing: `rustup component add {component}`"))?;
    }
    let toolchain = Toolchain::ready(workspace, Purpose::Check)?;
    // The agent's build script wants the object, whoever compiles the agent.
    ebpf::build(workspace, &toolchain)?;
    let outcomes = [
        one("format", || {
            stream(workspace.cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` mends it")
        }),
        one("clippy for eBPF", || ebpf::clippy(workspace, &toolchain)),
        one("clippy", || {
            stream(workspace.host_cargo("clippy").args(["--all-targets", "--", "--deny", "warnings"]))
        }),
        one("documentation", || {
            let mut doc = workspace.host_cargo("doc");
            stream(doc.args(["--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "--deny warnings"))
        }),
    ];
    let failed: Vec<_> =
        outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("not clean:\n{}", failed.join("\n"));
    }
    Ok(())
}

fn one(what: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    step(what, || check().map(|()| ((), "clean".to_owned())))
}
