//! A temporary folder of manifests for an agent to follow.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;

/// A folder of manifests that goes away with this value.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
    /// Files are prepared outside of the folder that is followed, on the same file system.
    staging: PathBuf,
    _root: TempDir,
}

impl Manifests {
    /// An empty folder.
    pub fn new() -> anyhow::Result<Self> {
        Self::below(&std::env::temp_dir())
    }

    pub(super) fn below(parent: &Path) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("ferroute-manifests-").tempdir_in(parent);
        let root = root.context("making a temporary folder for manifests")?;
        let (folder, staging) = (root.path().join("manifests"), root.path().join("staging"));
        for path in [&folder, &staging] {
            fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(Self { folder, staging, _root: root })
    }

    /// The folder, for `--manifests`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes objects as YAML documents to a file, which appears, or changes, at once.
    pub fn write(&self, file: &str, objects: &[Value]) -> anyhow::Result<()> {
        self.write_text(file, &yaml(objects)?)
    }

    /// Writes any text to a file, which appears, or changes, at once.
    pub fn write_text(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let staged = self.staging.join(file);
        fs::write(&staged, text).with_context(|| format!("writing {}", staged.display()))?;
        let path = self.folder.join(file);
        fs::rename(&staged, &path).with_context(|| format!("replacing {}", path.display()))
    }

    /// Writes into the file as an editor might: truncate, half of it, `halfway()`, the other half.
    pub fn write_slowly(&self, file: &str, objects: &[Value], halfway: impl FnOnce()) -> anyhow::Result<()> {
        use std::io::Write;
        let text = yaml(objects)?;
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let path = self.folder.join(file);
        let context = || format!("writing {}", path.display());
        let mut open = fs::File::create(&path).with_context(context)?;
        open.write_all(first).with_context(context)?;
        halfway();
        open.write_all(second).with_context(context)
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// Copies every YAML file of a folder.
    pub fn copy_from(&self, folder: &Path) -> anyhow::Result<()> {
        let context = || format!("reading {}", folder.display());
        for entry in fs::read_dir(folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.filter(|name| name.ends_with(".yaml")) {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                self.write_text(name, &text)?;
            }
        }
        Ok(())
    }

    /// Reads the documents of a file, to change and [`write`](Self::write) them again.
    pub fn read(&self, file: &str) -> anyhow::Result<Vec<Value>> {
        use serde::Deserialize;
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
        documents.collect::<Result<_, _>>().with_context(|| format!("parsing {}", path.display()))
    }
}

fn yaml(objects: &[Value]) -> anyhow::Result<String> {
    let documents = objects.iter().map(serde_yaml_ng::to_string);
    let documents: Vec<_> = documents.collect::<Result<_, _>>().context("writing an object as YAML")?;
    Ok(documents.join("---\n"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::objects::{node, service};
    use super::*;

    #[test]
    fn what_is_written_is_read() -> anyhow::Result<()> {
        let manifests = Manifests::new()?;
        let objects = [service("default", "web").build(), node("a").address(Ipv4Addr::LOCALHOST).build()];
        manifests.write("all.yaml", &objects)?;
        assert_eq!(manifests.read("all.yaml")?, objects);
        manifests.write_slowly("all.yaml", &objects[..1], || ())?;
        assert_eq!(manifests.read("all.yaml")?, objects[..1]);
        let copy = Manifests::new()?;
        copy.copy_from(manifests.path())?;
        assert_eq!(copy.read("all.yaml")?, objects[..1]);
        manifests.remove("all.yaml")?;
        assert!(manifests.read("all.yaml").is_err());
        Ok(())
    }
}
