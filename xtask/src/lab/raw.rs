//! Packets as they are: sent with headers of one's own, and seen as they cross a link.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::place::Place;
use super::sys;

/// Larger than any packet.
pub(super) const LARGEST: usize = 1 << 17;

/// How long one look for a frame waits.
const MOMENT: Duration = Duration::from_millis(50);

/// Sees every frame of a link, both ways.
#[derive(Debug)]
pub struct PacketSocket(Socket);

/// Sends IP packets whose headers the caller has written. The kernel routes them, and fills in nothing but
/// IPv4's header checksum.
#[derive(Debug)]
pub struct RawSender {
    v4: Socket,
    v6: Socket,
}

impl Place {
    /// Looks at the frames of a link of this place.
    pub fn packets(&self, link: &str) -> anyhow::Result<PacketSocket> {
        let socket = self.run(|| {
            let socket = sys::packet_socket(link)?;
            socket.set_read_timeout(Some(MOMENT))?;
            Ok::<_, io::Error>(socket)
        });
        socket.map(PacketSocket).with_context(|| format!("listening at {link} in {}", self.name()))
    }

    /// Sends packets from this place.
    pub fn raw_sender(&self) -> anyhow::Result<RawSender> {
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let made =
            self.run(|| Ok::<_, io::Error>(RawSender { v4: raw(Domain::IPV4)?, v6: raw(Domain::IPV6)? }));
        made.with_context(|| format!("a raw socket in {}", self.name()))
    }
}

impl PacketSocket {
    /// The next frame, from its Ethernet header on; None when none comes in time.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let mut frame = vec![0; LARGEST];
        loop {
            if let Some(length) = self.receive_into(&mut frame)? {
                frame.truncate(length);
                return Ok(Some(frame));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
        }
    }

    /// Waits a moment for a frame, and says how long it is.
    pub(super) fn receive_into(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame, from its Ethernet header on.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(|_bytes| ())
    }

    pub(super) fn set_buffer(&self, bytes: usize) -> io::Result<()> {
        let set = nix::sys::socket::setsockopt(&self.0, nix::sys::socket::sockopt::RcvBufForce, &bytes);
        set.map_err(Into::into)
    }
}

impl RawSender {
    /// Sends a packet, from its IP header on, to the destination that it names.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let cut = || io::Error::new(ErrorKind::InvalidInput, "a packet without a whole IP header");
        let (socket, to): (_, IpAddr) = if packet.first().is_some_and(|first| first >> 4 == 4) {
            let to: [u8; 4] = packet.get(16..20).and_then(|to| to.try_into().ok()).ok_or_else(cut)?;
            (&self.v4, Ipv4Addr::from(to).into())
        } else {
            let to: [u8; 16] = packet.get(24..40).and_then(|to| to.try_into().ok()).ok_or_else(cut)?;
            (&self.v6, Ipv6Addr::from(to).into())
        };
        socket.send_to(packet, &SockAddr::from(SocketAddr::new(to, 0))).map(|_bytes| ())
    }
}
