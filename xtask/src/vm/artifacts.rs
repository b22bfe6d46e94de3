//! What runs in the guests: this program, the agent and the tests, all statically linked.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::build;
use crate::progress::{capture, step};
use crate::toolchain::Purpose;
use crate::workspace::Workspace;

/// Programs on this machine.
#[derive(Clone, Debug)]
pub(super) struct Artifacts {
    pub(super) xtask: PathBuf,
    pub(super) agent: PathBuf,
    pub(super) tests: Vec<PathBuf>,
}

/// One line of what cargo says about a build.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// Builds the eBPF programs, the agent, this program and the tests.
pub(super) fn build(workspace: &Workspace) -> Result<Artifacts> {
    let agent = build::everything(workspace, Purpose::Test)?;
    let tests = step("test programs", || {
        let mut cargo = workspace.host_cargo("test");
        // Unit tests, which take longest to build, say nothing about a kernel.
        let only = ["--no-run", "--test", "*", "--message-format=json-render-diagnostics"];
        let messages = capture(cargo.args(only))?;
        let tests = integration_tests(&messages)?;
        if tests.is_empty() {
            bail!("there is no test to run: those in the folders `tests` of the packages are the ones");
        }
        let summary = format!("{} to run on each kernel", tests.len());
        Ok((tests, summary))
    })?;
    // Not the program that runs now: cargo may have built that with other flags, and not statically.
    Ok(Artifacts { xtask: agent.with_file_name("xtask"), agent, tests })
}

/// The executables of the integration tests.
fn integration_tests(messages: &str) -> Result<Vec<PathBuf>> {
    let mut tests = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message =
            serde_json::from_str(line).with_context(|| format!("reading what cargo says: {line}"))?;
        if let Message { executable: Some(executable), target: Some(Target { kind }) } = message
            && kind.iter().any(|kind| kind == "test")
        {
            tests.push(executable);
        }
    }
    Ok(tests)
}

/// The name of a test program without the hash that cargo adds.
pub(super) fn name(test: &Path) -> String {
    let file = test.file_name().unwrap_or_default().to_string_lossy();
    file.rsplit_once('-').map_or_else(|| file.clone().into_owned(), |(name, _hash)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integration_tests_are_run() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":"/t/deps/xtask-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"]},"executable":"/t/deps/paths-2f"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"]},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let tests = integration_tests(messages).unwrap();
        assert_eq!(tests, [PathBuf::from("/t/deps/paths-2f")]);
        assert_eq!(name(&tests[0]), "paths");
    }
}
