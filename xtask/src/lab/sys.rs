//! The one place where the lab has to be unsafe.

use std::io;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::links::Offload;

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

/// Switches an offload of a link in the network namespace of the calling thread.
pub(super) fn set_offload(link: &str, offload: Offload, on: bool) -> io::Result<()> {
    // Commands and flags of linux/ethtool.h.
    const ETHTOOL_STXCSUM: u32 = 0x17;
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETHTOOL_SFLAGS: u32 = 0x26;
    const ETHTOOL_SGRO: u32 = 0x2c;
    const ETH_FLAG_TXVLAN: u32 = 1 << 7;
    const ETH_FLAG_RXVLAN: u32 = 1 << 8;
    let flag = match offload {
        Offload::TransmitChecksum => return ethtool(link, ETHTOOL_STXCSUM, on.into()).map(drop),
        Offload::ReceiveMerge => return ethtool(link, ETHTOOL_SGRO, on.into()).map(drop),
        Offload::TransmitTag => ETH_FLAG_TXVLAN,
        Offload::ReceiveTag => ETH_FLAG_RXVLAN,
    };
    let others = ethtool(link, ETHTOOL_GFLAGS, 0)? & !flag;
    ethtool(link, ETHTOOL_SFLAGS, if on { others | flag } else { others }).map(drop)
}

/// A command of ethtool's that takes a number or returns one.
fn ethtool(link: &str, command: u32, data: u32) -> io::Result<u32> {
    /// `struct ethtool_value` of linux/ethtool.h.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value { command, data };
    // SAFETY: all of the structure is numbers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    if link.len() > room {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name too long for a link"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to a value of the command's type, here an
    // ethtool_value; both live until the call returns.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

/// A socket that gets every frame of a link in the network namespace of the calling thread, and sends
/// frames out of it.
pub(super) fn packet_socket(link: &str) -> io::Result<Socket> {
    // It gets nothing until it is bound: frames of other links are not for it.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let number = |n: i32| u16::try_from(n).map_err(io::Error::other);
    let index = nix::net::if_::if_nametoindex(link)?;
    let ll = libc::sockaddr_ll {
        sll_family: number(libc::AF_PACKET)?,
        sll_protocol: number(libc::ETH_P_ALL)?.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&ll)).map_err(io::Error::other)?;
    // SAFETY: the address is a whole sockaddr_ll, of the length that is told, and lives through the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const ll).cast(), length) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}
