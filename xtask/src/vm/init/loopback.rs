//! The loopback interface, which is down when a kernel starts.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

#[allow(clippy::cast_possible_truncation, reason = "flags of an interface are 16 bits wide in requests")]
const UP: i16 = (libc::IFF_UP | libc::IFF_RUNNING) as i16;

/// Sets it up, with its addresses.
pub(super) fn up() -> io::Result<()> {
    // Any socket will do: the request is about an interface of its network namespace.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the socket is open, and the request is the one that this call reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
