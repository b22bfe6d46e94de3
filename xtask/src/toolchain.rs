//! The compiler and linker for the eBPF programs: found, or installed, or explained.
//!
//! Two sets work. rustup's nightly with rust-src and a bpf-linker on PATH is what most aya users have. A
//! Debian machine without it gets rustc-web, rust-web-src and llvm-22-dev, and a bpf-linker built into
//! `target/tools`; rustup's own state is never changed.

mod choose;
mod facts;
mod install;
mod version;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::say;
use crate::workspace::Workspace;
use choose::Choice;
use facts::Facts;

/// What the eBPF programs are compiled and linked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly with rust-src, and a linker from PATH.
    Nightly {
        /// bpf-linker.
        linker: PathBuf,
    },
    /// The distribution's rustc with its library sources, and the linker built for its LLVM.
    Debian {
        /// bpf-linker.
        linker: PathBuf,
    },
}

/// What the machine is about to be used for: more than a build needs more tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Build the programs and the agent.
    Build,
    /// Build, then run the tests.
    Test,
    /// Build, then check style.
    Check,
}

impl Toolchain {
    /// Finds a toolchain, installing what is missing where that is allowed.
    pub fn ready(workspace: &Workspace, purpose: Purpose) -> Result<Self> {
        match choose::choose(&Facts::gather(workspace), purpose) {
            Choice::Ready(toolchain) => return Ok(toolchain),
            Choice::Tell(lines) => bail!("{}", lines.join("\n")),
            Choice::Install(steps) => install::run(workspace, &steps)?,
        }
        match choose::choose(&Facts::gather(workspace), purpose) {
            Choice::Ready(toolchain) => {
                say(format_args!("toolchain ready: {}", toolchain.describe()));
                Ok(toolchain)
            }
            still => bail!("everything was installed, yet the toolchain is not complete: {still:?}"),
        }
    }

    /// bpf-linker.
    #[must_use]
    pub fn linker(&self) -> &PathBuf {
        let (Self::Nightly { linker } | Self::Debian { linker }) = self;
        linker
    }

    /// One line that names both compiler and linker.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Nightly { linker } => format!("rustup's nightly with rust-src, {}", linker.display()),
            Self::Debian { linker } => format!("{}, {}", facts::DEBIAN_RUSTC, linker.display()),
        }
    }

    /// cargo, driving this toolchain's rustc.
    #[must_use]
    pub fn cargo(&self, workspace: &Workspace) -> Command {
        let mut cargo = match self {
            Self::Nightly { .. } => {
                let mut rustup = workspace.command("rustup");
                rustup.args(["run", "nightly", "cargo"]).env_remove("RUSTC").env_remove("RUSTDOC");
                rustup
            }
            Self::Debian { .. } => {
                let mut cargo = workspace.cargo();
                self.lend_rustc(&mut cargo);
                cargo
            }
        };
        cargo.env_remove("RUSTFLAGS");
        cargo
    }

    /// `cargo clippy`, from the same release as this toolchain's rustc: another release's clippy cannot read
    /// its libraries.
    #[must_use]
    pub fn clippy(&self, workspace: &Workspace) -> Command {
        match self {
            Self::Nightly { .. } => {
                let mut cargo = self.cargo(workspace);
                cargo.arg("clippy");
                cargo
            }
            Self::Debian { .. } => {
                let mut clippy = workspace.command(facts::DEBIAN_CLIPPY);
                clippy.arg("clippy").env("CARGO", workspace.cargo().get_program());
                self.lend_rustc(&mut clippy);
                clippy.env_remove("RUSTFLAGS");
                clippy
            }
        }
    }

    /// Lets whichever cargo there is drive the distribution's rustc, for this one child: no toolchain is
    /// linked into rustup. A stable rustc accepts `-Z build-std` only with RUSTC_BOOTSTRAP.
    fn lend_rustc(&self, command: &mut Command) {
        command.env("RUSTC", facts::DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    }
}
