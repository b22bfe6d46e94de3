//! Which releases this is.

/// The kube-proxy whose behaviour Ferroute follows.
pub const KUBERNETES: &str = "v1.36.2";

/// Go's word for this machine's architecture, as Kubernetes components say it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    std::env::consts::ARCH
};
