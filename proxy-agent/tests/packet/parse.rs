//! The model's own reading of a frame.

use std::net::IpAddr;

use proxy_common::Protocol;

/// Length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Neither IPv4 nor IPv6, or with extension headers that nobody knows.
    Foreign,
    /// Headers that are cut short or contradict each other.
    Malformed,
    /// An IP packet.
    Ip(Ip),
}

/// An IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Where the IP header starts.
    pub(crate) start: usize,
    /// Where what follows the headers starts.
    pub(crate) transport: usize,
    /// Where the packet ends, by its own length field.
    pub(crate) end: usize,
    pub(crate) protocol: u8,
    pub(crate) fragment: Option<Fragment>,
}

/// Which piece of a datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    /// In units of 8 bytes.
    pub(crate) offset: u16,
}

/// The part of a transport header that the programs look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP, UDP or SCTP.
    Ports(Ports),
    /// A TCP, UDP or SCTP fragment that is not the first.
    Later(Protocol),
    /// ICMP or ICMPv6, whole or first fragment.
    Icmp { kind: u8, code: u8 },
    /// Anything else.
    Other,
    /// Cut short.
    Malformed,
}

/// What the ports of a packet are, and what it does to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) protocol: Protocol,
    pub(crate) source: u16,
    pub(crate) destination: u16,
    /// TCP flags or type of the first SCTP chunk.
    pub(crate) flags: Option<u8>,
    /// Other fields of the header contradict each other; nothing that is needed.
    pub(crate) doubtful: bool,
}

/// TCP flags.
pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const ACK: u8 = 16;
}

/// SCTP chunk types.
pub(crate) mod chunk {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const INIT: u8 = 1;
    pub(crate) const INIT_ACK: u8 = 2;
    pub(crate) const ABORT: u8 = 6;
    pub(crate) const SHUTDOWN: u8 = 7;
    pub(crate) const SHUTDOWN_ACK: u8 = 8;
    pub(crate) const COOKIE_ECHO: u8 = 10;
    pub(crate) const SHUTDOWN_COMPLETE: u8 = 14;
}

impl Ports {
    /// Whether it opens a connection: SYN without ACK and RST, INIT. False for UDP.
    pub(crate) fn starts(&self) -> bool {
        match (self.protocol, self.flags) {
            (Protocol::Tcp, Some(flags)) => flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN,
            (Protocol::Sctp, Some(kind)) => kind == chunk::INIT,
            _ => false,
        }
    }

    /// Whether a flow may begin with it.
    pub(crate) fn may_open(&self) -> bool {
        self.protocol == Protocol::Udp || self.starts()
    }

    /// Whether it can only be of a connection that is there already: TCP without SYN and RST.
    pub(crate) fn goes_on(&self) -> bool {
        self.protocol == Protocol::Tcp && self.flags.is_some_and(|flags| flags & (tcp::SYN | tcp::RST) == 0)
    }

    pub(crate) fn ends(&self) -> bool {
        match (self.protocol, self.flags) {
            (Protocol::Tcp, Some(flags)) => flags & tcp::FIN != 0,
            (Protocol::Sctp, Some(kind)) => {
                matches!(kind, chunk::SHUTDOWN | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE)
            }
            _ => false,
        }
    }

    pub(crate) fn resets(&self) -> bool {
        match (self.protocol, self.flags) {
            (Protocol::Tcp, Some(flags)) => flags & tcp::RST != 0,
            (Protocol::Sctp, Some(kind)) => kind == chunk::ABORT,
            _ => false,
        }
    }
}

/// Reads a frame up to its transport header.
pub(crate) fn frame(bytes: &[u8]) -> Frame {
    match word(bytes, 12) {
        Some(0x0800) => ip4(bytes, ETHERNET, true).map_or(Frame::Malformed, Frame::Ip),
        Some(0x86dd) => ip6(bytes, ETHERNET, true),
        _ => Frame::Foreign,
    }
}

/// Reads an IP packet that an ICMP error quotes: its end may be cut off.
pub(crate) fn quoted(bytes: &[u8], start: usize, outer: IpAddr) -> Frame {
    if outer.is_ipv4() {
        ip4(bytes, start, false).map_or(Frame::Malformed, Frame::Ip)
    } else {
        ip6(bytes, start, false)
    }
}

fn ip4(bytes: &[u8], start: usize, whole: bool) -> Option<Ip> {
    let header = bytes.get(start..start + 20)?;
    let length = usize::from(header[0] & 15) * 4;
    let total = usize::from(word(header, 2)?);
    let end = if whole { start + total } else { bytes.len() };
    if header[0] >> 4 != 4 || length < 20 || total < length || bytes.len() < end || end < start + length {
        return None;
    }
    let place = word(header, 6)?;
    let fragment =
        (place & 0x3fff != 0).then_some(Fragment { id: u32::from(word(header, 4)?), offset: place & 0x1fff });
    Some(Ip {
        source: address4(&header[12..16]),
        destination: address4(&header[16..20]),
        start,
        transport: start + length,
        end,
        protocol: header[9],
        fragment,
    })
}

fn ip6(bytes: &[u8], start: usize, whole: bool) -> Frame {
    let Some(header) = bytes.get(start..start + 40) else { return Frame::Malformed };
    let end = if whole { start + 40 + usize::from(word(header, 4).unwrap()) } else { bytes.len() };
    if header[0] >> 4 != 6 || bytes.len() < end {
        return Frame::Malformed;
    }
    let (mut protocol, mut at, mut fragment, mut headers) = (header[6], start + 40, None, 0);
    let later = |fragment: Option<Fragment>| fragment.is_some_and(|fragment| fragment.offset > 0);
    while matches!(protocol, 0 | 43 | 44 | 51 | 60) && !later(fragment) {
        headers += 1;
        if headers > 6 {
            return Frame::Foreign;
        }
        let Some(extension) = bytes[..end].get(at..at + 8) else { return Frame::Malformed };
        let length = match protocol {
            44 => 8,
            51 => usize::from(extension[1]) * 4 + 8,
            _ => usize::from(extension[1]) * 8 + 8,
        };
        if protocol == 44 {
            let place = word(extension, 2).unwrap();
            let id = u32::from_be_bytes(extension[4..].try_into().unwrap());
            if place & 0xfff9 != 0 {
                fragment = Some(Fragment { id, offset: place >> 3 });
            }
        }
        (protocol, at) = (extension[0], at + length);
        if at > end {
            let matters = matches!(protocol, 0 | 43 | 44 | 51 | 60 | 6 | 17 | 58 | 132);
            return if matters { Frame::Malformed } else { Frame::Foreign };
        }
    }
    if !matches!(protocol, 6 | 17 | 58 | 132) {
        return Frame::Foreign;
    }
    Frame::Ip(Ip {
        source: address6(&header[8..24]),
        destination: address6(&header[24..40]),
        start,
        transport: at,
        end,
        protocol,
        fragment,
    })
}

/// Reads the transport header of a packet.
pub(crate) fn transport(bytes: &[u8], ip: &Ip) -> Transport {
    let protocol = match ip.protocol {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    };
    let later = ip.fragment.is_some_and(|fragment| fragment.offset > 0);
    let rest = &bytes[ip.transport..ip.end];
    match protocol {
        Some(protocol) if later => Transport::Later(protocol),
        Some(protocol) => ports(rest, protocol).map_or(Transport::Malformed, Transport::Ports),
        None if is_icmp(ip) && !later => match rest.get(..8) {
            Some(header) => Transport::Icmp { kind: header[0], code: header[1] },
            None => Transport::Malformed,
        },
        None => Transport::Other,
    }
}

/// Where an IP packet ends by its own length field, also where less of it is quoted.
pub(crate) fn declared_end(bytes: &[u8], ip: &Ip) -> usize {
    let (at, before) = if ip.source.is_ipv4() { (2, 0) } else { (4, 40) };
    ip.start + before + word(bytes, ip.start + at).map_or(0, usize::from)
}

/// Reads as much of a quoted transport header as there is: 8 bytes at least (RFC 792).
pub(crate) fn quoted_ports(bytes: &[u8], ip: &Ip) -> Option<Ports> {
    let protocol = match ip.protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return None,
    };
    let rest = bytes.get(ip.transport..ip.transport + 8)?;
    let (source, destination) = (word(rest, 0)?, word(rest, 2)?);
    Some(Ports { protocol, source, destination, flags: None, doubtful: false })
}

/// Whether the protocol is the family's ICMP.
pub(crate) fn is_icmp(ip: &Ip) -> bool {
    ip.protocol == if ip.source.is_ipv4() { 1 } else { 58 }
}

/// Whether an ICMP message reports an error with a packet that it quotes.
pub(crate) fn is_error(ip: &Ip, kind: u8) -> bool {
    if ip.source.is_ipv4() { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
}

fn ports(rest: &[u8], protocol: Protocol) -> Option<Ports> {
    let (header, flags) = match protocol {
        Protocol::Tcp => (20, 13),
        Protocol::Udp => (8, usize::MAX),
        _ => (12, 12),
    };
    let fixed = rest.get(..header)?;
    let doubtful = match protocol {
        Protocol::Tcp => {
            let length = usize::from(fixed[12] >> 4) * 4;
            length < 20 || length > rest.len()
        }
        Protocol::Udp => usize::from(word(fixed, 4)?) != rest.len(),
        _ => rest.len() < 16,
    };
    Some(Ports {
        protocol,
        source: word(fixed, 0)?,
        destination: word(fixed, 2)?,
        flags: rest.get(flags).copied(),
        doubtful,
    })
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn address4(bytes: &[u8]) -> IpAddr {
    <[u8; 4]>::try_from(bytes).unwrap().into()
}

fn address6(bytes: &[u8]) -> IpAddr {
    <[u8; 16]>::try_from(bytes).unwrap().into()
}
