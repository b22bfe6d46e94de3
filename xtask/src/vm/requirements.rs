//! What the host has to have.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress::{capture, say, step};

/// One thing that the host has to have.
struct Requirement {
    /// A program on PATH, or the path of a file.
    what: &'static str,
    /// Debian's package that has it.
    package: &'static str,
    why: &'static str,
}

const REQUIREMENTS: [Requirement; 4] = [
    Requirement { what: "qemu-system-x86_64", package: "qemu-system-x86", why: "it boots the kernels" },
    Requirement {
        what: "depmod",
        package: "kmod",
        why: "it finds out in which order a kernel's modules have to be loaded",
    },
    Requirement { what: "dpkg-deb", package: "dpkg", why: "it unpacks the kernels" },
    Requirement {
        what: super::apt::KEYRING,
        package: "debian-archive-keyring",
        why: "with it the downloaded kernels are known to be Debian's",
    },
];

/// Installs what is missing where that is possible, or says how.
pub(super) fn meet() -> Result<()> {
    let missing: Vec<_> = REQUIREMENTS.iter().filter(|requirement| !present(requirement.what)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for Requirement { what, package, why } in &missing {
        say(format_args!("this machine lacks {what}, in the Debian package {package}: {why}"));
    }
    let packages: Vec<_> = missing.iter().map(|requirement| requirement.package).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !Path::new("/etc/debian_version").exists() || !present("apt-get") {
        bail!("`cargo xtask vm` needs Debian or a system made from it, for apt-get fetches its kernels");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("install what is missing: `sudo {by_hand}`, and run this again");
    }
    step("apt-get install", || {
        // A source that fails to refresh matters only if it was the one with our packages.
        if let Err(error) = capture(apt_get().arg("update")) {
            say(format_args!("going on with the package lists there are: {error:#}"));
        }
        capture(
            apt_get().args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(&packages),
        )
        .with_context(|| format!("try `{by_hand}` by hand"))?;
        Ok(((), packages.join(" ")))
    })
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

fn present(what: &str) -> bool {
    if what.starts_with('/') { Path::new(what).exists() } else { find(what).is_some() }
}

/// A program on PATH, or in the folders that only root has on PATH.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::present;

    #[test]
    fn programs_and_files() {
        assert!(present("sh"));
        assert!(present("/proc/self/exe"));
        assert!(!present("no-such-program"));
        assert!(!present("/no/such/file"));
    }
}
