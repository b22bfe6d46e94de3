//! What kube-proxy leaves on a node when it goes, and kube-proxy itself beside us.
//!
//! [`find()`] reads what there is, [`remove()`] takes it away, [`warn_if_beside()`] says that it is there. All of it is
//! about the network namespace of the process. What is kube-proxy's and what is not is decided in `names` and
//! `decide`, without the kernel; netlink does the rest, because an image without a distribution has no `iptables`.
//!
//! Connections that kube-proxy has translated go on by the kernel's connection tracking. That works only as long as
//! somebody in the network namespace asks for it, so a table of our own stands in for the rules that go (`hold`).
#![deny(unsafe_code)]

mod beside;
mod decide;
mod error;
mod hold;
mod ipsets;
mod ipvs;
mod leftovers;
mod legacy;
mod names;
mod netlink;
mod nft;
mod tables;

use std::fs;

pub use beside::{Beside, beside, warn_if_beside};
pub use error::Error;
pub use hold::release;
pub use leftovers::{Backend, Kept, Leftover, Leftovers, Unread};
pub use tables::Ip;

use self::decide::decide;

/// How often rules are read again because somebody else has changed rules meanwhile.
const TRIES: usize = 10;

/// What of kube-proxy's is there.
///
/// # Errors
/// When the kernel does not tell.
pub fn find() -> Result<Leftovers, Error> {
    let mut found = Leftovers::default();
    let ruleset = nft::read()?;
    for table in ruleset.iter().flat_map(|ruleset| &ruleset.tables) {
        decide(Backend::Nft, table, &mut found);
    }
    for ip in Ip::BOTH {
        legacy::read(ip, &mut found)?;
    }
    if let Some(ruleset) = ruleset {
        found.hold = hold::needed(&found, &ruleset);
        found.generation = ruleset.generation;
    }
    let node_ports = ipsets::read(&mut found)?;
    ipvs::read(&node_ports, &mut found)?;
    Ok(found)
}

/// Removes what was found, and returns what was: the rules of nftables in one step, so that no packet sees half of
/// them. They are found again when somebody has changed rules since.
///
/// # Errors
/// What could not be removed, after everything else was.
pub fn remove(mut found: Leftovers) -> Result<Leftovers, Error> {
    for _ in 1..TRIES {
        match nft::remove(&found) {
            Err(Error::Changed) => found = find()?,
            Err(error) => return Err(error),
            Ok(()) => return remove_others(found),
        }
    }
    nft::remove(&found)?;
    remove_others(found)
}

/// What is not in nftables. Sets last but one: rules name them, and those of legacy iptables have to be gone.
fn remove_others(found: Leftovers) -> Result<Leftovers, Error> {
    let mut failed = Vec::new();
    let steps = [legacy::remove(&found), ipsets::remove(&found), ipvs::remove(&found)];
    for errors in steps {
        failed.extend(errors);
    }
    if failed.is_empty() { Ok(found) } else { Err(Error::Some(failed)) }
}

/// A file of /proc that is not there says that the kernel has no such thing.
fn read_proc(path: &str) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}
