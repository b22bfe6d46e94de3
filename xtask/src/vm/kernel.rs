//! Debian's kernels, unpacked: which package has a series, and where its parts lie.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use super::modules;
use crate::progress::capture;

/// A kernel that lies ready.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// What was asked for, such as `5.10`.
    pub(super) series: String,
    /// What the kernel calls itself, such as `5.10.0-46-cloud-amd64`.
    pub(super) release: String,
    /// The folder that its package was unpacked to.
    pub(super) tree: PathBuf,
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.tree.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    pub(super) fn modules(&self) -> PathBuf {
        self.tree.join("lib/modules").join(&self.release)
    }
}

/// A package with a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image {
    package: String,
    version: String,
}

/// The newest kernel of each series. One that was unpacked before is used again, without asking for a newer.
pub(super) fn provide(folder: &Path, series: &[&str]) -> Result<Vec<Kernel>> {
    let mut apt = None;
    let mut kernels = Vec::new();
    for &series in series {
        if let Some(kernel) = unpacked(folder, series)? {
            kernels.push(kernel);
            continue;
        }
        let apt = match &apt {
            Some(apt) => apt,
            None => apt.insert(Apt::new(folder.join("apt"))?),
        };
        kernels.push(fetch(apt, folder, series).with_context(|| format!("fetching a {series} kernel"))?);
    }
    Ok(kernels)
}

fn unpacked(folder: &Path, series: &str) -> Result<Option<Kernel>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
        let Ok(release) = entry.file_name().into_string() else { continue };
        let kernel = Kernel { series: series.to_owned(), tree: entry.path(), release };
        if is_of(&kernel.release, series) && kernel.image().is_file() {
            found.push(kernel);
        }
    }
    Ok(found.into_iter().max_by_key(|kernel| numbers(&kernel.release)))
}

fn fetch(apt: &Apt, folder: &Path, series: &str) -> Result<Kernel> {
    // Debian's own kernel of a release has no series in the name of its metapackage; the others have.
    let metapackages = ["linux-image-cloud-amd64".to_owned(), format!("linux-image-{series}-cloud-amd64")];
    let known = metapackages.iter().map(|package| apt.show(package)).collect::<Result<Vec<_>>>()?.join("\n");
    let image = newest(&known, series).with_context(|| {
        format!(
            "none of {} in Debian's lists is of this series; try one of {}",
            metapackages.join(" and "),
            super::MATRIX.join(", ")
        )
    })?;
    let file = apt.download(&image.package, &image.version)?;
    let release = image.package.trim_start_matches(IMAGE).to_owned();

    // Made ready under another name, so that what was interrupted does not look finished.
    let unfinished = folder.join("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("removing {}", unfinished.display()))?;
    }
    capture(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&unfinished))?;
    modules::index(&unfinished, &release)?;
    let tree = folder.join(&release);
    fs::rename(&unfinished, &tree).with_context(|| format!("moving a kernel to {}", tree.display()))?;
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    Ok(Kernel { series: series.to_owned(), release, tree })
}

const IMAGE: &str = "linux-image-";

/// The newest package with a kernel of a series, from what the lists say about its metapackages.
fn newest(known: &str, series: &str) -> Option<Image> {
    known
        .split("\n\n")
        .filter_map(|stanza| {
            let version = field(stanza, "Version")?;
            let package = field(stanza, "Depends")?.split([',', ' ']).next()?;
            (is_of(version, series) && package.starts_with(IMAGE))
                .then(|| Image { package: package.to_owned(), version: version.to_owned() })
        })
        .max_by_key(|image| numbers(&image.version))
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether a version or release is of a series: 6.1.192-2 is of 6.1, 6.12.117-1 is not.
fn is_of(version: &str, series: &str) -> bool {
    version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
}

/// The numbers in a version, in order: enough to compare versions of one series.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
        Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n\n\
        Package: linux-image-cloud-amd64\nVersion: 6.1.176-1\n\
        Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n\n\
        Package: linux-image-cloud-amd64\nVersion: 5.10.262-1\n\
        Depends: linux-image-5.10.0-46-cloud-amd64 (= 5.10.262-1)\n\n\
        Package: linux-image-6.12-cloud-amd64\nVersion: 6.12.117-1~deb12u1\n\
        Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1), something\n\n\
        Package: linux-image-6.1-cloud-amd64\nVersion: 6.1.180-1~deb11u1\n\
        Depends: linux-image-6.1.0-0.deb11.52-cloud-amd64 (= 6.1.180-1~deb11u1)\n";

    #[test]
    fn the_newest_of_a_series() {
        let image = |package: &str, version: &str| {
            Some(Image { package: package.to_owned(), version: version.to_owned() })
        };
        assert_eq!(newest(KNOWN, "5.10"), image("linux-image-5.10.0-46-cloud-amd64", "5.10.262-1"));
        assert_eq!(newest(KNOWN, "6.1"), image("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"));
        assert_eq!(
            newest(KNOWN, "6.12"),
            image("linux-image-6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1")
        );
        assert_eq!(newest(KNOWN, "6.18"), None);
    }

    #[test]
    fn a_tree_is_used_again_only_when_whole() {
        let folder = tempfile::tempdir().unwrap();
        let tree = |release: &str| folder.path().join(release);
        for (release, whole) in [("6.1.0-9-x", true), ("6.1.0-10-x", true), ("6.1.0-11-x", false)] {
            fs::create_dir_all(tree(release).join("boot")).unwrap();
            if whole {
                fs::write(tree(release).join("boot").join(format!("vmlinuz-{release}")), "").unwrap();
            }
        }
        fs::write(tree("6.1.0-10-x.log"), "").unwrap();
        let kernel = unpacked(folder.path(), "6.1").unwrap().unwrap();
        assert_eq!((kernel.release.as_str(), &kernel.tree), ("6.1.0-10-x", &tree("6.1.0-10-x")));
        assert!(unpacked(folder.path(), "6.12").unwrap().is_none());
    }
}
