//! What network cards do by themselves. rtnetlink does not tell.
#![expect(unsafe_code, reason = "a system call; what is above is safe")]

use std::{io, os::fd::AsRawFd as _};

use rustix::net::{AddressFamily, SocketType, socket};

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether a link of the thread's network namespace takes the VLANs' tags off the frames that come in, and keeps them beside.
///
/// # Errors
/// The kernel's: there is no such link.
pub(super) fn takes_tags_off(link: &str) -> io::Result<bool> {
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETH_FLAG_RXVLAN: u32 = 1 << 8;
    let mut value = Value { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: all of the structure is numbers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if link.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: the socket is open; SIOCETHTOOL takes an ifreq whose data points to a value of the command's type, here an
    // ethtool_value; both live until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data & ETH_FLAG_RXVLAN != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_tags_and_others_have_to_be_there() {
        assert!(!takes_tags_off("lo").unwrap());
        assert!(takes_tags_off("no-such-link").is_err());
        assert!(takes_tags_off("a-name-that-no-link-can-have").is_err());
    }
}
