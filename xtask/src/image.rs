//! The container image: its file system, and an archive of it in the OCI image layout that `ctr images import`,
//! `podman load`, `skopeo copy oci-archive:` and `kind load image-archive` take. No container engine is needed.

mod archive;
mod layer;
mod manifest;
mod rootfs;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use rootfs::lay_out;

use crate::progress::step;
use crate::workspace::Workspace;

/// What was made.
#[derive(Debug)]
pub struct Image {
    /// The file system, as the container sees it.
    pub rootfs: PathBuf,
    /// The archive.
    pub archive: PathBuf,
}

/// Makes the image of an agent in `target/image`. The same agent gives the same archive, byte for byte.
pub fn build(workspace: &Workspace, agent: &Path, reference: &str) -> Result<Image> {
    let folder = workspace.target_dir().join("image");
    let (rootfs, archive) = (folder.join("rootfs"), folder.join("ferroute.tar"));
    step("image", || {
        lay_out(agent, &rootfs)?;
        let layer = layer::of(&rootfs)?;
        let size = archive::write(&archive, &layer, reference)?;
        let mib = size as f64 / f64::from(1 << 20);
        let said = format!("{reference}, {}, {mib:.1} MiB", archive.display());
        Ok((Image { rootfs, archive }, said))
    })
}
