use std::{
    fs, io,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Error;

/// The program of this process, also when its file has been replaced.
const SELF: &str = "/proc/self/exe";

/// Starts this process anew with the same arguments, in the same process. What is pinned serves meanwhile; the
/// lock on it, sockets and all other open files end with the old program.
///
/// Comes back with the reason why that could not be done.
pub(super) fn restart(execute: impl FnOnce(Command) -> io::Error) -> Error {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program());
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    Error::new(execute(command)).context("starting the agent anew for its changed configuration")
}

/// The path of the program, so that the process keeps its name; else the link that always works.
fn program() -> PathBuf {
    let id = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let path = fs::read_link(SELF).ok().filter(|path| id(path).is_some() && id(path) == id(Path::new(SELF)));
    path.unwrap_or_else(|| SELF.into())
}
