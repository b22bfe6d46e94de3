//! Debian's packages, without touching what this machine has: apt with package lists and a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::progress::capture;

/// The keys that Debian signs its archive with.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where kernels come from: bookworm has 6.1 and 6.12, bullseye 5.10.
const SOURCES: [(&str, &str); 3] = [
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
    ("http://deb.debian.org/debian-security", "bullseye-security"),
];

/// apt with a folder of its own.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Fetches the package lists into `folder`.
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        let apt = Self { folder };
        apt.configure().with_context(|| format!("writing a configuration into {}", apt.folder.display()))?;
        capture(apt.command("apt-get").args(["--quiet", "--quiet", "update"]))
            .context("fetching the lists of Debian's packages; is Debian's archive reachable?")?;
        Ok(apt)
    }

    /// What the lists say about every version of a package; nothing if they do not have it.
    pub(super) fn show(&self, package: &str) -> Result<String> {
        let mut show = self.command("apt-cache");
        show.args(["show", "--all-versions", package]);
        let output = show.output().context("starting `apt-cache`")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Downloads one version of a package; the path of the file.
    pub(super) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let folder = self.folder.join("packages");
        fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        capture(
            self.command("apt-get")
                .args(["--quiet", "--quiet", "download", &format!("{package}={version}")])
                .current_dir(&folder),
        )?;
        fs::read_dir(&folder)
            .with_context(|| format!("listing {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| is_file_of(path, package))
            .with_context(|| format!("apt-get put no {package} into {}", folder.display()))
    }

    fn configure(&self) -> std::io::Result<()> {
        for folder in ["lists/partial", "cache/archives/partial", "state"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::write(self.folder.join("sources.list"), sources())?;
        // The packages of this machine are of no concern: none is installed.
        fs::write(self.folder.join("status"), "")?;
        fs::write(self.configuration(), configuration(&self.folder))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.configuration()).env("LC_ALL", "C.UTF-8");
        command
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }
}

fn sources() -> String {
    SOURCES
        .iter()
        .map(|(place, suite)| format!("deb [arch=amd64 signed-by={KEYRING}] {place} {suite} main\n"))
        .collect()
}

/// The user is the one who runs us, not apt's: it need not be able to read our folder.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::SourceList \"{folder}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::Lists \"{folder}/lists\";\n\
         Dir::State::Status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n"
    )
}

/// Files are named `package_version_architecture.deb`.
fn is_file_of(path: &Path, package: &str) -> bool {
    path.file_name()
        .and_then(|name| name.to_str()?.strip_prefix(package)?.strip_prefix('_'))
        .is_some_and(|rest| rest.ends_with(".deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_not_mistaken_for_a_longer_name() {
        let path = Path::new("/x/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb");
        assert!(is_file_of(path, "linux-image-6.1.0-56-cloud-amd64"));
        assert!(!is_file_of(path, "linux-image-6.1.0-56"));
        assert!(!is_file_of(Path::new("/x/partial"), "linux-image-6.1.0-56"));
    }

    #[test]
    fn nothing_of_this_machines_apt_is_written_to() {
        let text = configuration(Path::new("/w/target/vm/apt"));
        for what in ["Dir::State::Lists", "Dir::State ", "Dir::Cache", "Dir::State::Status"] {
            assert!(text.contains(&format!("{} \"/w/target/vm/apt/", what.trim_end())), "{what}: {text}");
        }
    }
}
