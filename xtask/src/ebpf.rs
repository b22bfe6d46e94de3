//! Builds the eBPF object.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::progress::{step, stream};
use crate::toolchain::Toolchain;
use crate::workspace::Workspace;

const TARGET: &str = "bpfel-unknown-none";

/// Compiles and links the programs; the path is that of the object. It is written only when its content
/// changed, so that the agent is built again only then.
pub fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    step("eBPF programs", || {
        let mut cargo = toolchain.cargo(workspace);
        cargo.arg("build");
        target_args(&mut cargo, workspace, toolchain);
        stream(&mut cargo).with_context(|| {
            format!("compiling with {}; CONTRIBUTING.md has a section on build trouble", toolchain.describe())
        })?;
        let built = target_dir(workspace).join(TARGET).join("bpf/proxy-ebpf");
        let size = copy_if_changed(&built, &workspace.object())?;
        Ok((workspace.object(), format!("{}, {} KiB", workspace.object().display(), size.div_ceil(1024))))
    })
}

/// Runs clippy over the programs as they are compiled: for their own target.
pub fn clippy(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let mut clippy = toolchain.clippy(workspace);
    target_args(&mut clippy, workspace, toolchain);
    stream(clippy.args(["--", "--deny", "warnings"]))
}

fn target_args(cargo: &mut Command, workspace: &Workspace, toolchain: &Toolchain) {
    cargo.args(["--package", "proxy-ebpf", "--profile", "bpf", "--target", TARGET, "-Z", "build-std=core"]);
    cargo.arg("--target-dir").arg(target_dir(workspace));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(env::consts::ARCH, toolchain.linker()).join("\x1f"));
}

/// A folder of its own: another compiler than the host's must not share one, and cargo's lock on it would
/// make an editor's builds wait.
fn target_dir(workspace: &Workspace) -> PathBuf {
    workspace.target_dir().join("bpf-build")
}

fn rustflags(arch: &str, linker: &Path) -> Vec<String> {
    vec![
        // The machine that the programs run on, for the few things that depend on it (pt_regs).
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // BTF is made from debug information.
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise zeroing and copying become calls to a byte loop: slow, and refused on context fields.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ]
}

/// Copies the object unless the copy has the same bytes already; returns its size.
fn copy_if_changed(from: &Path, to: &Path) -> Result<usize> {
    let new = fs::read(from).with_context(|| format!("reading the linked object {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(new.len());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(to, &new).with_context(|| format!("writing {}", to.display()))?;
    Ok(new.len())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_flags_that_every_program_depends_on() {
        let flags = rustflags("aarch64", Path::new("/t/bpf-linker"));
        assert!(flags.contains(&"--cfg=bpf_target_arch=\"aarch64\"".to_owned()));
        assert!(flags.contains(&"-Clinker=/t/bpf-linker".to_owned()));
        assert!(flags.iter().all(|flag| !flag.contains(['\x1f', ' '])));
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("sub/b"));
        fs::write(&from, b"one").unwrap();
        assert_eq!(copy_if_changed(&from, &to).unwrap(), 3);
        let past = SystemTime::now() - Duration::from_secs(60);
        fs::File::options().append(true).open(&to).unwrap().set_modified(past).unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), past);
        fs::write(&from, b"two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
        assert!(copy_if_changed(&dir.path().join("none"), &to).is_err());
    }
}
