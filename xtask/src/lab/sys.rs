//! The one place where the lab has to be unsafe.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Makes the kernel kill the child when the thread that starts it ends, however it ends.
pub(super) fn die_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called: prctl() is a
    // plain system call, and neither it nor the conversion of its error allocates.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}
