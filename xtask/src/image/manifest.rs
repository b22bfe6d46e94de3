//! The three documents of an image: its configuration, its manifest, and the index that names the manifest
//! (OCI image specification 1.1).

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Bytes that others refer to by their digest.
pub(super) struct Blob {
    media_type: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    /// Lower-case hexadecimal.
    pub(super) fn sha256(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.sha256()),
            "size": self.bytes.len(),
        })
    }
}

pub(super) fn layer(tar: Vec<u8>) -> Blob {
    Blob { media_type: "application/vnd.oci.image.layer.v1.tar", bytes: tar }
}

pub(super) fn config(layer: &Blob) -> Blob {
    let document = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/bin"],
            "Entrypoint": ["/usr/local/bin/proxy-agent"],
            "Cmd": ["run"],
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.sha256())] },
    });
    Blob { media_type: "application/vnd.oci.image.config.v1+json", bytes: document.to_string().into() }
}

pub(super) fn manifest(config: &Blob, layer: &Blob) -> Blob {
    let document = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    Blob { media_type: "application/vnd.oci.image.manifest.v1+json", bytes: document.to_string().into() }
}

/// `reference` is the name under which the image is imported, `repository:tag`.
pub(super) fn index(manifest: &Blob, reference: &str) -> Vec<u8> {
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let mut descriptor = manifest.descriptor();
    descriptor["annotations"] = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": tag,
    });
    let document = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    });
    document.to_string().into()
}

/// Of the machine that this runs on, which is the one that the agent was built for; Go's word for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
