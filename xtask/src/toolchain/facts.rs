//! What this machine has. Only looking: nothing is changed here, and nothing decided.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::version::Version;
use crate::workspace::Workspace;

/// Debian's compiler. By path: `rustc` on PATH is usually rustup's.
pub(super) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Debian's clippy, of the same release.
pub(super) const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// Where Debian keeps the LLVM that its rustc was built with.
pub(super) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library/Cargo.lock";

/// What the choice of a toolchain depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// rustup has a nightly toolchain.
    pub(super) nightly: bool,
    /// That nightly has the sources of the standard library.
    pub(super) nightly_src: bool,
    /// A bpf-linker on PATH.
    pub(super) path_linker: Option<Linker>,
    /// The bpf-linker that an earlier run built into this workspace.
    pub(super) own_linker: Option<Linker>,
    /// Release of Debian's rustc, and the LLVM it carries.
    pub(super) debian_rustc: Option<(Version, Version)>,
    /// Debian's sources of the standard library are where its rustc looks for them.
    pub(super) debian_src: bool,
    /// Headers and llvm-config of LLVM 22.
    pub(super) llvm_dev: bool,
    /// Debian's clippy.
    pub(super) debian_clippy: bool,
    /// What tests use, by the names of the packages, as far as it is there.
    pub(super) tools: Vec<&'static str>,
    /// apt-get is there, and the system calls itself Debian or like Debian.
    pub(super) debian: bool,
    /// We may install packages.
    pub(super) root: bool,
}

/// A linker that runs, and the version it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linker {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

impl Facts {
    /// Looks at this machine.
    pub(super) fn gather(workspace: &Workspace) -> Self {
        let sysroot = nightly_sysroot();
        let rustc = output(DEBIAN_RUSTC, &["-vV"]);
        Self {
            nightly: sysroot.is_some(),
            nightly_src: sysroot
                .is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()),
            path_linker: on_path("bpf-linker").and_then(Linker::probe),
            own_linker: Linker::probe(workspace.tools_dir().join("bin/bpf-linker")),
            debian_rustc: rustc
                .and_then(|text| Some((Version::find(&text)?, Version::labelled(&text, "LLVM version:")?))),
            debian_src: Path::new(DEBIAN_LIBRARY).is_file(),
            llvm_dev: Path::new(LLVM_PREFIX).join("bin/llvm-config").is_file()
                && Path::new(LLVM_PREFIX).join("include/llvm-c/Core.h").is_file(),
            debian_clippy: Path::new(DEBIAN_CLIPPY).is_file(),
            tools: tools(),
            debian: on_path("apt-get").is_some()
                && fs::read_to_string("/etc/os-release").is_ok_and(|text| is_debian(&text)),
            root: nix::unistd::geteuid().is_root(),
        }
    }

    pub(super) fn has_tool(&self, package: &str) -> bool {
        self.tools.contains(&package)
    }
}

impl Linker {
    fn probe(path: PathBuf) -> Option<Self> {
        let version = Version::find(&output(&path, &["--version"])?)?;
        Some(Self { path, version })
    }
}

fn tools() -> Vec<&'static str> {
    let programs = [
        ("bpftool", "bpftool"),
        ("iptables", "iptables-nft-restore"),
        ("ipset", "ipset"),
        ("nftables", "nft"),
    ];
    let is_there =
        |program: &str| on_path(program).is_some() || Path::new("/usr/sbin").join(program).is_file();
    let there = programs.into_iter().filter(|(_, program)| is_there(program)).map(|(package, _)| package);
    let pip = output("python3", &["-m", "pip", "--version"]).map(|_| "python3-pip");
    there.chain(pip).collect()
}

fn nightly_sysroot() -> Option<PathBuf> {
    let path = output("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])?;
    Some(PathBuf::from(path.trim()))
}

/// What a program prints, if it is there and succeeds.
fn output(program: impl AsRef<Path>, args: &[&str]) -> Option<String> {
    // Some rustups would fetch a missing toolchain when asked for it: a look must not install.
    let mut command = Command::new(program.as_ref());
    command.args(args).env("RUSTUP_AUTO_INSTALL", "0").stdin(Stdio::null());
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .any(|value| value.trim_matches('"').split_whitespace().any(|id| id == "debian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_what_is_like_it() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nHOME_URL=https://debian.example\n"));
        assert!(!is_debian("VERSION_ID=debian\n"));
    }

    #[test]
    fn a_program_that_is_not_there_says_nothing() {
        assert_eq!(output("/nonexistent/tool", &[]), None);
        assert_eq!(output("/bin/sh", &["-c", "exit 1"]), None);
        assert_eq!(output("/bin/sh", &["-c", "echo 0.13.0"]).as_deref(), Some("0.13.0\n"));
    }
}
