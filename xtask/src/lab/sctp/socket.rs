//! A raw socket of SCTP: the kernel of the lab need not know the protocol.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockaddrStorage, recv, recvfrom, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::packet::{Broken, PROTOCOL, Packet};

/// Gets a copy of every SCTP packet to its address, and sends any that it likes.
#[derive(Debug)]
pub(super) struct RawSctp {
    socket: Socket,
    ipv6: bool,
}

/// What one wait has brought.
#[derive(Debug)]
pub(super) enum Arrived {
    /// A packet, and who sent it.
    Packet(SocketAddr, Packet),
    /// A packet from there that is broken.
    Broken(IpAddr, Broken),
    /// Nothing in time.
    Nothing,
}

impl RawSctp {
    /// To be called in a place. An unspecified address gets what is for any of the place's.
    pub(super) fn bind(address: IpAddr) -> io::Result<Self> {
        let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(PROTOCOL)))?;
        socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
        Ok(Self { socket, ipv6: address.is_ipv6() })
    }

    /// One of the family of `like` that also hears of ICMP errors: they become errors of its calls.
    pub(super) fn for_client(like: SocketAddr) -> io::Result<Self> {
        let any: IpAddr =
            if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let raw = Self::bind(any)?;
        if raw.ipv6 {
            setsockopt(&raw.socket, sockopt::Ipv6RecvErr, &true)?;
        } else {
            setsockopt(&raw.socket, sockopt::Ipv4RecvErr, &true)?;
        }
        Ok(raw)
    }

    pub(super) fn send(&self, packet: &Packet, to: IpAddr) -> io::Result<()> {
        let to = SockAddr::from(SocketAddr::new(to, 0));
        self.socket.send_to(&packet.bytes(), &to).map(|_bytes| ())
    }

    /// Whether the error of a call is about a packet from this port: such a socket hears of every error about SCTP
    /// that its network gets.
    pub(super) fn is_about(&self, port: u16) -> bool {
        let mut quoted = [0; 64];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let mut found = false;
        // What is quoted begins with the header of SCTP.
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut quoted, flags) {
            found |= length >= 2 && quoted[..2] == port.to_be_bytes();
        }
        found
    }

    pub(super) fn receive(&self, patience: Duration) -> io::Result<Arrived> {
        // Zero would be for ever.
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let mut bytes = [0; 4096];
        let (length, from) = match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut bytes) {
            Ok(received) => received,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(Arrived::Nothing),
            Err(error) => return Err(error.into()),
        };
        let from = from.as_ref().and_then(address).ok_or_else(|| io::Error::from(ErrorKind::InvalidData))?;
        let bytes = &bytes[..length];
        // Raw sockets show IPv4's header, and not that of IPv6.
        let header = if self.ipv6 { 0 } else { usize::from(bytes.first().copied().unwrap_or(0) & 0xf) * 4 };
        Ok(match Packet::parse(bytes.get(header..).unwrap_or_default()) {
            Ok(packet) => Arrived::Packet(SocketAddr::new(from, packet.source_port), packet),
            Err(broken) => Arrived::Broken(from, broken),
        })
    }
}

fn address(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| v6.ip().into()))
}
