//! Carries out what was chosen.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::choose::{LINKER, Package, Step};
use super::facts::LLVM_PREFIX;
use crate::progress::{capture, say, step, stream};
use crate::workspace::Workspace;

pub(super) fn run(workspace: &Workspace, steps: &[Step]) -> Result<()> {
    for one in steps {
        match one {
            Step::Apt(packages) => apt(packages)?,
            Step::Linker => linker(workspace)?,
        }
    }
    Ok(())
}

fn apt(packages: &[Package]) -> Result<()> {
    for Package { name, why } in packages {
        say(format_args!("this machine lacks the Debian package {name}: {why}"));
    }
    step("apt-get install", || {
        // A source that fails to refresh matters only if it was the one with our packages.
        if let Err(error) = capture(apt_get().arg("update")) {
            say(format_args!("going on with the package lists there are: {error:#}"));
        }
        capture(apt_get().args(install_args(packages)))
            .context("CONTRIBUTING.md, \"Toolchains\", names the other way to get a toolchain")?;
        Ok(((), format!("{} installed", packages.len())))
    })
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

/// `--no-remove`: rather fail than take away a package that somebody put there.
fn install_args(packages: &[Package]) -> Vec<&'static str> {
    let options = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    options.into_iter().chain(packages.iter().map(|package| package.name)).collect()
}

fn linker(workspace: &Workspace) -> Result<()> {
    say("this workspace lacks bpf-linker: it turns the compiled programs into one eBPF object");
    step("bpf-linker from crates.io", || {
        stream(&mut linker_command(workspace))?;
        Ok(((), format!("in {}", workspace.tools_dir().display())))
    })
}

fn linker_command(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args([
        "install",
        "bpf-linker",
        "--locked",
        "--force",
        "--no-default-features",
        "--features",
        "llvm-22",
    ]);
    cargo.arg(format!("--version={LINKER}")).arg("--root").arg(workspace.tools_dir());
    cargo.env("LLVM_PREFIX", LLVM_PREFIX).env("LLVM_SYS_221_PREFIX", LLVM_PREFIX);
    // On PATH for this child, or cargo would advise the user to put it there.
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain([workspace.tools_dir().join("bin")]);
    if let Ok(path) = env::join_paths(dirs) {
        cargo.env("PATH", path);
    }
    // A target directory of the user's would be shared with unrelated builds, and ours left behind.
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_never_asks_and_never_removes() {
        let args = install_args(&[Package { name: "bpftool", why: "" }]);
        assert_eq!(args, ["install", "--yes", "--no-install-recommends", "--no-remove", "bpftool"]);
    }

    #[test]
    fn the_linker_stays_in_the_workspace() {
        let workspace = Workspace::find().unwrap();
        let command = linker_command(&workspace);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert!(args.contains(&"--version=0.13.0".to_owned()), "{args:?}");
        assert_eq!(args.last(), Some(&workspace.tools_dir().display().to_string()));
    }
}
