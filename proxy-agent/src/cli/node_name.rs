use anyhow::{Context, Result, ensure};

/// The name given, else that in `NODE_NAME`, else that of the host, as the kubelet makes a node name of it:
/// trimmed, in lower case.
pub(super) fn node_name(given: Option<&str>) -> Result<String> {
    let of_environment = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let name = match given.map(str::to_owned).or_else(of_environment) {
        Some(name) => name,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("reading the host name from /proc/sys/kernel/hostname; --node-name NAME does without")?,
    };
    let name = name.trim().to_lowercase();
    ensure!(
        !name.is_empty(),
        "the node name is empty: give the name of this node's Node object as --node-name or in NODE_NAME"
    );
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_trimmed_and_lowered() {
        assert_eq!(node_name(Some(" Node-1\n")).unwrap(), "node-1");
        let host = node_name(None).unwrap();
        assert_eq!(host, host.trim().to_lowercase());
        assert!(node_name(Some(" ")).unwrap_err().to_string().contains("--node-name"));
    }
}
