//! What the first process does that no other may.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;

/// Loads a module. A compressed one is unpacked by the kernel, which can do so where Debian compresses.
pub(super) fn load_module(path: &Path) -> io::Result<()> {
    /// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h, since 5.17.
    const COMPRESSED: i32 = 4;
    const PARAMETERS: &CStr = c"";
    let compressed = path.extension().is_some_and(|extension| extension != "ko");
    let flags = if compressed { COMPRESSED } else { 0 };
    let file = File::open(path)?;
    // SAFETY: the file is open and the string ends with a zero byte, both until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), PARAMETERS.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs a child to its end. Also waits for what other processes leave behind, which becomes ours: a test that
/// looks whether a process is gone must not find a zombie.
pub(super) fn run(command: &mut Command) -> io::Result<ExitStatus> {
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    loop {
        let mut status = 0;
        // SAFETY: the status is writable for as long as the call takes.
        match unsafe { libc::waitpid(-1, &raw mut status, 0) } {
            ended if ended == pid => return Ok(ExitStatus::from_raw(status)),
            -1 => return Err(io::Error::last_os_error()),
            _other => {}
        }
    }
}

/// Switches the machine off.
pub(super) fn power_off() -> ! {
    // SAFETY: the call takes plain numbers; all file systems are in memory, so there is nothing to write out.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        thread::park();
    }
}
