use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context as _, Result};
use tar::{Builder, Header};

use super::manifest;

/// Writes an OCI image layout as one tar file, and says how large it is, in bytes.
pub(super) fn write(path: &Path, layer: &[u8], reference: &str) -> Result<u64> {
    let layer = manifest::layer(layer.to_vec());
    let config = manifest::config(&layer);
    let manifest = manifest::manifest(&config, &layer);
    let index = manifest::index(&manifest, reference);

    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let mut tar = Builder::new(BufWriter::new(file));
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        tar.append_data(&mut header, name, bytes)
            .with_context(|| format!("writing {name} to {}", path.display()))
    };
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put("index.json", &index)?;
    for blob in [&config, &manifest, &layer] {
        put(&format!("blobs/sha256/{}", blob.sha256()), &blob.bytes)?;
    }
    let file = tar.into_inner().with_context(|| format!("writing {}", path.display()))?;
    let file = file.into_inner().with_context(|| format!("writing {}", path.display()))?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use serde_json::Value;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::image::{lay_out, layer};

    fn entries(tar: impl std::io::Read) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(descriptor["size"], bytes.len());
        let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "a blob has the name of its content");
        bytes
    }

    #[test]
    fn every_reference_leads_to_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, rootfs) = (folder.path().join("agent"), folder.path().join("rootfs"));
        std::fs::write(&agent, "the agent").unwrap();
        lay_out(&agent, &rootfs).unwrap();
        let first = layer::of(&rootfs).unwrap();
        lay_out(&agent, &rootfs).unwrap();
        assert_eq!(first, layer::of(&rootfs).unwrap(), "the same files, the same layer");

        let path = folder.path().join("image.tar");
        let size = write(&path, &first, "example.org/ferroute:1.2").unwrap();
        assert_eq!(size, std::fs::metadata(&path).unwrap().len());
        let files = entries(File::open(&path).unwrap());
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = json(&files["index.json"]);
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "example.org/ferroute:1.2");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "1.2");
        let manifest = json(blob(&files, &index["manifests"][0]));
        let config = json(blob(&files, &manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = entries(blob(&files, &manifest["layers"][0]));
        assert_eq!(layer["usr/local/bin/proxy-agent"], b"the agent");
        assert!(layer.contains_key("usr/local/bin/kube-proxy"), "the name of the stock DaemonSet's command");
    }
}
