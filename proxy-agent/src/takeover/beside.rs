//! kube-proxy, or what it left, beside a Ferroute that serves.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tracing::{debug, warn};

use super::{
    error::Error,
    ipvs, legacy,
    names::{IPVS_LINK, SERVICES, TABLE},
    nft,
    tables::{Ip, Table},
};

/// What of kube-proxy's is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Names of what directs traffic.
    pub standing: Vec<String>,
    /// Process number of a kube-proxy that runs in this network namespace.
    pub running: Option<u32>,
}

/// Says once, in the log, what kube-proxy has or does beside us. That is no reason not to serve.
pub fn warn_if_beside() {
    let found = match beside() {
        Ok(found) => found,
        Err(error) => {
            debug!(%error, "whether kube-proxy has left rules is not known");
            return;
        }
    };
    let standing = found.standing.join(", ");
    match (found.running, found.standing.is_empty()) {
        (Some(process), nothing) => warn!(
            process,
            standing = if nothing { "nothing yet" } else { &standing },
            "kube-proxy runs beside on this node, and both serve: new connections are Ferroute's wherever its programs \
             are, others kube-proxy's; take kube-proxy off this node, then run `proxy-agent cleanup --kube-proxy`"
        ),
        (None, false) => warn!(
            standing,
            "kube-proxy has left rules on this node, and both serve: new connections are Ferroute's wherever its \
             programs are; what it does not serve, and connections from before, still follow the rules, which nobody \
             keeps up to date; remove them with `proxy-agent cleanup --kube-proxy` (see before with --dry-run)"
        ),
        (None, true) => {}
    }
}

/// What of kube-proxy's is in this network namespace. It is not read rule by rule, as [`find`](super::find) does.
///
/// # Errors
/// When the kernel does not tell.
pub fn beside() -> Result<Beside, Error> {
    let has_services =
        |table: &&Table| table.name == "nat" && table.chains.iter().any(|chain| chain.name == SERVICES);
    let mut standing = Vec::new();
    let tables = nft::read_without_rules()?;
    for table in &tables {
        if table.name == TABLE {
            standing.push(format!("nftables table {} {TABLE}", table.ip));
        }
    }
    for table in tables.iter().filter(has_services) {
        standing.push(format!("iptables chain {} nat {SERVICES}", table.ip));
    }
    for ip in Ip::BOTH {
        if legacy::read_tables(ip)?.iter().any(|table| has_services(&table)) {
            standing.push(format!("legacy iptables chain {ip} nat {SERVICES}"));
        }
    }
    if ipvs::index_of_link()?.is_some() {
        standing.push(format!("IPVS link {IPVS_LINK}"));
    }
    Ok(Beside { standing, running: running(Path::new("/proc")) })
}

/// A process called kube-proxy in our network namespace, which is not this program under that name.
fn running(proc: &Path) -> Option<u32> {
    let inode = |path: PathBuf| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let ours = proc.join("self");
    let (namespace, program) = (inode(ours.join("ns/net"))?, inode(ours.join("exe")));
    fs::read_dir(proc).ok()?.flatten().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let is_called_so = fs::read_to_string(process.join("comm")).ok()?.trim_end() == "kube-proxy";
        let is_beside = is_called_so
            && inode(process.join("ns/net")) == Some(namespace)
            && inode(process.join("exe")) != program;
        is_beside.then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_process_is_known_by_name_network_and_program() {
        let proc = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = proc.path().join(name);
            fs::write(&path, "").unwrap();
            path
        };
        let [here, elsewhere, ours, theirs] = ["here", "elsewhere", "ours", "theirs"].map(file);
        let process = |name: &str, comm: &str, network: &Path, program: &Path| {
            let folder = proc.path().join(name);
            fs::create_dir_all(folder.join("ns")).unwrap();
            fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
            symlink(network, folder.join("ns/net")).unwrap();
            symlink(program, folder.join("exe")).unwrap();
        };
        process("self", "kube-proxy", &here, &ours);
        process("7", "kube-proxy", &here, &ours);
        process("8", "kube-proxy", &elsewhere, &theirs);
        process("9", "kubelet", &here, &theirs);
        assert_eq!(running(proc.path()), None, "ourselves, another node's, another program");
        process("10", "kube-proxy", &here, &theirs);
        assert_eq!(running(proc.path()), Some(10));
    }
}
