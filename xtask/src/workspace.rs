//! Where things are, and cargo as a child process.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::progress::capture;

/// This workspace on this machine.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    triple: String,
}

impl Workspace {
    /// The workspace that this xtask was built from, and the host's target triple.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in a workspace")?;
        let version =
            capture(cargo_command().arg("-vV")).context("asking cargo for the host's target triple")?;
        let triple = parse_host(&version).context("`cargo -vV` names no host triple")?;
        Ok(Self { root: root.to_owned(), triple: triple.to_owned() })
    }

    /// The top folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The host's target triple. Named in every build, so that static linking leaves proc macros alone.
    #[must_use]
    pub fn triple(&self) -> &str {
        &self.triple
    }

    /// The build directory for everything that runs on the host.
    #[must_use]
    pub fn target_dir(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Where `cargo install` puts tools that are only for this workspace.
    #[must_use]
    pub fn tools_dir(&self) -> PathBuf {
        self.target_dir().join("tools")
    }

    /// The eBPF object that the agent embeds.
    #[must_use]
    pub fn object(&self) -> PathBuf {
        self.target_dir().join("bpf/proxy-ebpf")
    }

    /// The statically linked agent.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.target_dir().join(&self.triple).join("release/proxy-agent")
    }

    /// cargo in this workspace, as if typed into a shell.
    #[must_use]
    pub fn cargo(&self) -> Command {
        self.here(cargo_command())
    }

    /// Any other program in this workspace, as if typed into a shell.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.here(clean(Command::new(program.as_ref())))
    }

    /// cargo with the flags and environment that every host artefact of this workspace is built with:
    /// build, test and bench then share one set of compiled dependencies.
    #[must_use]
    pub fn host_cargo(&self, subcommand: &str) -> Command {
        let mut cargo = self.cargo();
        cargo.args([subcommand, "--release", "--workspace", "--exclude", "proxy-ebpf"]);
        cargo.args(["--target", &self.triple]).arg("--target-dir").arg(self.target_dir());
        let (name, value) = static_flags(&self.triple, env::var("RUSTFLAGS").ok().as_deref());
        cargo.env(name, value).env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo.env("FERROUTE_EBPF_OBJECT", self.object());
        cargo
    }

    fn here(&self, mut command: Command) -> Command {
        command.current_dir(&self.root);
        command
    }
}

/// The cargo that runs us, else the one on PATH.
fn cargo_command() -> Command {
    clean(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
}

/// Takes away what `cargo run` set for us. Build scripts such as ring's watch these variables: with them the
/// same build started from a shell and from here would undo each other.
fn clean(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_set_by_cargo_run) {
            command.env_remove(name);
        }
    }
    command
}

fn is_set_by_cargo_run(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO"].contains(&name)
}

/// The variable that makes rustc link statically, with the user's own flags kept: RUSTFLAGS, where set,
/// replaces the flags for one target.
fn static_flags(triple: &str, user: Option<&str>) -> (String, String) {
    const STATIC: &str = "-C target-feature=+crt-static";
    match user.map(str::trim).filter(|flags| !flags.is_empty()) {
        Some(flags) => ("RUSTFLAGS".to_owned(), format!("{flags} {STATIC}")),
        None => {
            let target = triple.to_uppercase().replace(['-', '.'], "_");
            (format!("CARGO_TARGET_{target}_RUSTFLAGS"), STATIC.to_owned())
        }
    }
}

fn parse_host(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_triple() {
        let text =
            "cargo 1.95.0 (f2d3ce0bd 2026-03-21)\nrelease: 1.95.0\nhost: x86_64-unknown-linux-gnu\nos: x\n";
        assert_eq!(parse_host(text), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(parse_host("cargo 1.95.0"), None);
    }

    #[test]
    fn static_linking_keeps_the_users_flags() {
        let (name, value) = static_flags("x86_64-unknown-linux-gnu", Some(" -D warnings "));
        assert_eq!((&*name, &*value), ("RUSTFLAGS", "-D warnings -C target-feature=+crt-static"));
        for none in [None, Some(""), Some("  ")] {
            let (name, value) = static_flags("aarch64-unknown-linux-gnu", none);
            assert_eq!(name, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS");
            assert_eq!(value, "-C target-feature=+crt-static");
        }
    }

    #[test]
    fn only_what_cargo_run_sets_is_taken_away() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_BIN_NAME", "CARGO"] {
            assert!(is_set_by_cargo_run(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS", "PATH"] {
            assert!(!is_set_by_cargo_run(name), "{name}");
        }
    }
}
