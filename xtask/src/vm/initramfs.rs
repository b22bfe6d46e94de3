//! The first root file system of a guest, and its only one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::artifacts::{self, Artifacts};
use super::cpio::Writer;
use super::guest::{AGENT, ARGUMENTS, BIN, LATER_MODULES, MODULES, TESTS};
use super::kernel::Kernel;
use super::{modules, share};

/// Writes the archive that a kernel boots into.
pub(super) fn write(path: &Path, kernel: &Kernel, artifacts: &Artifacts, arguments: &[String]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut root = Root { archive: Writer::new(BufWriter::new(file)), folders: BTreeSet::new() };
    root.copy("init", &artifacts.xtask)?;
    root.copy(AGENT, &artifacts.agent)?;
    // Tests of the agent's own package know it by the path that cargo built it at.
    root.link(&artifacts.agent, AGENT)?;
    for (number, test) in artifacts.tests.iter().enumerate() {
        // Numbered, for two packages may have tests of one name.
        root.copy(&format!("{TESTS}/{number:02}-{}", artifacts::name(test)), test)?;
    }
    let modules = modules::to_load(kernel)?;
    for (folder, modules) in [(MODULES, modules.first), (LATER_MODULES, modules.later)] {
        for (number, module) in modules.iter().enumerate() {
            let name = module.rsplit('/').next().unwrap_or(module);
            root.copy(&format!("{folder}/{number:02}-{name}"), &kernel.modules().join(module))?;
        }
    }
    let mut libraries = BTreeSet::new();
    for program in share::programs()? {
        root.copy(&format!("{BIN}/{}", program.name), &program.path)?;
        libraries.extend(program.libraries);
    }
    for library in &libraries {
        root.copy(&inside(library), library)?;
    }
    root.file(ARGUMENTS, &ended(arguments))?;
    root.archive.finish().with_context(|| format!("writing {}", path.display()))
}

/// An archive that is given the folders it lacks.
struct Root<W> {
    archive: Writer<W>,
    folders: BTreeSet<String>,
}

impl<W: Write> Root<W> {
    fn copy(&mut self, to: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(to, &content)
    }

    fn link(&mut self, path: &Path, target: &str) -> Result<()> {
        let path = inside(path);
        self.folders_above(&path)?;
        self.archive
            .link(&path, &format!("/{target}"))
            .with_context(|| format!("adding {path} to an initramfs"))
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.folders_above(path)?;
        self.archive.file(path, content).with_context(|| format!("adding {path} to an initramfs"))
    }

    fn folders_above(&mut self, path: &str) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.folders.insert(folder.to_owned()) {
                self.archive.folder(folder).with_context(|| format!("adding {folder} to an initramfs"))?;
            }
        }
        Ok(())
    }
}

/// A path of this machine as one of the archive.
fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

fn ended(arguments: &[String]) -> Vec<u8> {
    arguments.iter().flat_map(|argument| argument.bytes().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_is_made_once_and_first() {
        let mut bytes = Vec::new();
        let mut root = Root { archive: Writer::new(&mut bytes), folders: BTreeSet::new() };
        root.file("lib/x/one", b"").unwrap();
        root.file("lib/x/two", b"").unwrap();
        root.archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let names: Vec<_> =
            text.split("070701").skip(1).map(|entry| entry[104..].trim_end_matches('\0')).collect();
        assert_eq!(names, ["lib", "lib/x", "lib/x/one", "lib/x/two", "TRAILER!!!"]);
    }

    #[test]
    fn arguments_keep_their_spaces() {
        assert_eq!(ended(&["--test-threads=1".to_owned(), "a b".to_owned()]), b"--test-threads=1\0a b\0");
    }
}
