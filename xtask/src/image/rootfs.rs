use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Where the agent is.
const AGENT: &str = "usr/local/bin/proxy-agent";
/// The stock DaemonSet of kubeadm starts this: the agent then takes kube-proxy's command line.
const KUBE_PROXY: &str = "usr/local/bin/kube-proxy";

/// Lays out the image's file system in a folder, which is made anew.
pub fn lay_out(agent: &Path, rootfs: &Path) -> Result<()> {
    if rootfs.exists() {
        fs::remove_dir_all(rootfs).with_context(|| format!("removing {}", rootfs.display()))?;
    }
    let binary = rootfs.join(AGENT);
    let folder = binary.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::copy(agent, &binary)
        .with_context(|| format!("copying {} to {}", agent.display(), binary.display()))?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", binary.display()))?;
    let link = rootfs.join(KUBE_PROXY);
    symlink("proxy-agent", &link).with_context(|| format!("making the link {}", link.display()))
}
