//! Programs of this machine that tests call, with the libraries that they are linked to.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::requirements;
use crate::progress::capture;

/// What tests call. Every machine has all but bpftool, without which tests leave out what needs it, and iproute2's `ip`.
const PROGRAMS: [&str; 7] = ["bash", "bpftool", "cat", "ip", "ls", "sh", "true"];

/// A program, and the libraries that have to lie in the guest where they lie here.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) libraries: Vec<PathBuf>,
}

/// Those that this machine has.
pub(super) fn programs() -> Result<Vec<Program>> {
    PROGRAMS
        .iter()
        .filter_map(|name| Some((name, requirements::find(name)?)))
        .map(|(name, path)| {
            let libraries = libraries(&capture(Command::new("ldd").arg(&path))?);
            Ok(Program { name, path, libraries })
        })
        .collect()
}

/// From lines `libelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x...)`, or the path of the loader alone.
fn libraries(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| {
            let path = line.split_once("=>").map_or(line, |(_, path)| path).split_whitespace().next()?;
            path.starts_with('/').then(|| path.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_libraries() {
        let listing = "\tlinux-vdso.so.1 (0x00007fb5c8059000)\n\
            \tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007fb5c7fa7000)\n\
            \tlibgone.so.1 => not found\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007fb5c805b000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(listing), expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
