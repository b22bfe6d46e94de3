//! The one place where the lab has to be unsafe.

use std::io;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
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

/// A socket for MPTCP, not connected; the std type fits, as it only knows TCP's calls.
pub(super) fn mptcp_socket(ipv6: bool) -> io::Result<TcpStream> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket() takes three numbers and touches no memory of ours.
    let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socket() has just returned this descriptor, and nobody else has it.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
