//! Reading the headers of a packet: IPv4 with options, IPv6 with extension headers, and of the transport header what
//! flows need.

use proxy_common::{Protocol, seen};

use super::{context::Context, tables::PacketIp};
use crate::{
    count::count,
    ip::{V4, V6},
};

/// Bytes of the link layer's header.
pub(super) const ETHERNET: u32 = 14;

/// IPv6 extension headers that are gone through (RFC 8200 section 4.1).
const MOST_EXTENSIONS: u32 = 6;
/// No transport header is looked for behind so many bytes of other headers.
const MOST_HEADERS: u32 = 512;

const TCP_FIN: u8 = 1 << 0;
const TCP_SYN: u8 = 1 << 1;
const TCP_RST: u8 = 1 << 2;
const TCP_ACK: u8 = 1 << 4;

/// What kind of packet it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// One with ports, or a later fragment of one.
    Transport,
    /// An ICMP error, which quotes the packet that it is about.
    IcmpError,
    /// Anything else.
    Other,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Whole,
    First,
    Later,
}

/// What is read of a packet's headers.
#[repr(C)]
pub(crate) struct Headers<A> {
    pub(super) source: A,
    pub(super) destination: A,
    /// Where the IP header begins in the frame.
    pub(super) ip: u32,
    /// Where the transport header begins in the frame.
    pub(super) transport: u32,
    /// Bytes from the IP header's begin to the packet's end.
    pub(super) length: u32,
    /// Identification of a fragment, in host order.
    pub(super) id: u32,
    /// Host order; 0 for a later fragment.
    pub(super) source_port: u16,
    /// Host order; 0 for a later fragment.
    pub(super) destination_port: u16,
    /// Protocol number of the transport header.
    pub(super) protocol: u8,
    /// Bytes of the transport header.
    pub(super) transport_length: u8,
    /// Time to live, or hop limit.
    pub(super) ttl: u8,
    pub(super) kind: Kind,
    pub(super) part: Part,
    /// Whether it can open a flow: a SYN, an INIT, any UDP.
    pub(super) opens: bool,
    /// Whether it begins a connection of a protocol that has such a thing: a SYN, an INIT.
    pub(super) begins: bool,
    /// Whether it belongs to a connection that is there already: TCP that neither begins nor resets one.
    pub(super) goes_on: bool,
    /// Bits of [`seen`] that the packet shows.
    pub(super) shows: u8,
    /// An ICMP echo request.
    pub(super) echo_request: bool,
}

impl<A: Copy> Headers<A> {
    /// Reads a frame's headers; false for what is not to be touched. What is malformed is counted.
    #[inline(never)]
    pub(super) fn read<I, C: Context>(&mut self, ctx: C) -> bool
    where
        I: ReadIp<Words = A>,
    {
        let read = ctx.reach(ETHERNET + I::HEADER) && I::read(ctx, ETHERNET, false, self).is_some();
        if read && self.part == Part::Later {
            self.kind = if protocol(self.protocol).is_some() { Kind::Transport } else { Kind::Other };
            return true;
        }
        if read && self.transport > ETHERNET + MOST_HEADERS {
            return false;
        }
        if !read || read_transport::<I, C>(ctx, self).is_none() {
            count(|counters| &mut counters.malformed);
            return false;
        }
        true
    }

    /// Forgets what is read of the transport header.
    #[inline(always)]
    fn clear(&mut self) {
        self.source_port = 0;
        self.destination_port = 0;
        self.transport_length = 0;
        self.kind = Kind::Other;
        self.opens = false;
        self.begins = false;
        self.goes_on = false;
        self.shows = 0;
        self.echo_request = false;
    }

    #[inline(always)]
    pub(super) fn is_fragment(&self) -> bool {
        self.part != Part::Whole
    }

    #[inline(always)]
    pub(super) fn is_first_fragment(&self) -> bool {
        self.part == Part::First
    }

    #[inline(always)]
    pub(super) fn is_later_fragment(&self) -> bool {
        self.part == Part::Later
    }
}

/// The protocol of this number, if Services can have it.
#[inline(always)]
pub(super) fn protocol(number: u8) -> Option<Protocol> {
    const TCP: u8 = Protocol::Tcp as u8;
    const UDP: u8 = Protocol::Udp as u8;
    const SCTP: u8 = Protocol::Sctp as u8;
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        SCTP => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Reading an IP header.
pub(crate) trait ReadIp: PacketIp {
    /// Reads the header at offset `at`; of the transport header only where it is. `quoted`: inside an ICMP error, where
    /// the packet may be cut off. `None` when it makes no sense.
    fn read<C: Context>(ctx: C, at: u32, quoted: bool, headers: &mut Headers<Self::Words>) -> Option<()>;
}

/// The length that a header gives, if the frame has so much. A packet that stands for several segments may be longer
/// than its header can say, which is 0 then.
#[inline(always)]
fn length<C: Context>(ctx: C, at: u32, given: u32, quoted: bool) -> Option<u32> {
    let there = ctx.length().wrapping_sub(at);
    if quoted || given <= there && given != 0 {
        Some(given)
    } else if given == 0 && there > 0xffff && ctx.segment_payload() != 0 {
        Some(there)
    } else {
        None
    }
}

impl ReadIp for V4 {
    #[inline(always)]
    fn read<C: Context>(ctx: C, at: u32, quoted: bool, headers: &mut Headers<[u32; 1]>) -> Option<()> {
        const MORE_FRAGMENTS: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let version: u8 = ctx.read(at)?;
        let header = u32::from(version & 0xf) * 4;
        if version >> 4 != 4 || header < Self::HEADER {
            return None;
        }
        let length = length(ctx, at, u32::from(u16::from_be(ctx.read(at + 2)?)), quoted)?;
        if length < header {
            return None;
        }
        let fragment = u16::from_be(ctx.read(at + 6)?);
        headers.source = [ctx.read(at + 12)?];
        headers.destination = [ctx.read(at + 16)?];
        headers.ip = at;
        headers.transport = at + header;
        headers.length = length;
        headers.ttl = ctx.read(at + 8)?;
        headers.protocol = ctx.read(at + 9)?;
        headers.part = part(fragment & OFFSET, fragment & MORE_FRAGMENTS);
        headers.id = u32::from(u16::from_be(ctx.read(at + 4)?));
        headers.clear();
        Some(())
    }
}

impl ReadIp for V6 {
    #[inline(always)]
    fn read<C: Context>(ctx: C, at: u32, quoted: bool, headers: &mut Headers<[u32; 4]>) -> Option<()> {
        let version: u8 = ctx.read(at)?;
        if version >> 4 != 6 {
            return None;
        }
        let payload = u32::from(u16::from_be(ctx.read(at + 4)?));
        let given = if payload == 0 && !quoted { 0 } else { payload + Self::HEADER };
        headers.length = length(ctx, at, given, quoted)?;
        headers.source = [ctx.read(at + 8)?, ctx.read(at + 12)?, ctx.read(at + 16)?, ctx.read(at + 20)?];
        headers.destination =
            [ctx.read(at + 24)?, ctx.read(at + 28)?, ctx.read(at + 32)?, ctx.read(at + 36)?];
        headers.ip = at;
        headers.ttl = ctx.read(at + 7)?;
        headers.part = Part::Whole;
        headers.id = 0;
        headers.clear();
        headers.protocol = ctx.read(at + 6)?;
        headers.transport = at + Self::HEADER;
        for _ in 0..MOST_EXTENSIONS {
            match extension(ctx, headers) {
                Extension::Read => {}
                Extension::None => break,
                Extension::Malformed => return None,
            }
        }
        Some(())
    }
}

/// What stands behind an IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Extension {
    Read,
    None,
    Malformed,
}

/// Reads an extension header (RFC 8200 section 4), if one is next. Where it ends is kept in memory, so that the verifier
/// takes one header for the next.
#[inline(never)]
fn extension<C: Context>(ctx: C, headers: &mut Headers<[u32; 4]>) -> Extension {
    read_extension(ctx, headers).unwrap_or(Extension::Malformed)
}

#[inline(always)]
fn read_extension<C: Context>(ctx: C, headers: &mut Headers<[u32; 4]>) -> Option<Extension> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    const MORE_FRAGMENTS: u16 = 1;
    const OFFSET: u16 = !7;

    let (at, kind) = (headers.transport, headers.protocol);
    if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
        return Some(Extension::None);
    }
    if headers.part == Part::Later {
        return Some(Extension::None);
    }
    if at > headers.ip + MOST_HEADERS || at + 8 > headers.ip + headers.length || !ctx.reach(at + 8) {
        return None;
    }
    let given = u32::from(ctx.read::<u8>(at + 1)?);
    let size = match kind {
        FRAGMENT => {
            let fragment = u16::from_be(ctx.read(at + 2)?);
            headers.part = part(fragment & OFFSET, fragment & MORE_FRAGMENTS);
            headers.id = u32::from_be(ctx.read(at + 4)?);
            8
        }
        // It counts in words, and two of them are not counted (RFC 4302 section 2.2).
        AUTHENTICATION => (given + 2) * 4,
        _ => (given + 1) * 8,
    };
    headers.protocol = ctx.read(at)?;
    headers.transport = at + size;
    Some(Extension::Read)
}

/// By a fragment's offset and its flag that says that more follow.
#[inline(always)]
const fn part(offset: u16, more: u16) -> Part {
    if offset != 0 {
        Part::Later
    } else if more != 0 {
        Part::First
    } else {
        Part::Whole
    }
}

/// Reads the transport header. `None` when it is cut off, or contradicts the IP header.
#[inline(always)]
fn read_transport<I: PacketIp, C: Context>(ctx: C, headers: &mut Headers<I::Words>) -> Option<()> {
    const INIT: u8 = 1;
    const ABORT: u8 = 6;
    const SHUTDOWN: u8 = 7;
    const SHUTDOWN_ACK: u8 = 8;
    const SHUTDOWN_COMPLETE: u8 = 14;

    let at = headers.transport;
    let Some(protocol) = protocol(headers.protocol) else {
        if headers.protocol == I::ICMP {
            if !ctx.reach(at + 8) {
                return None;
            }
            let message: u8 = ctx.read(at)?;
            let (error, echo) = if I::ICMP == V4::ICMP {
                (matches!(message, 3 | 11 | 12), message == 8)
            } else {
                (matches!(message, 1..=4), message == 128)
            };
            headers.kind = if error && !headers.is_fragment() { Kind::IcmpError } else { Kind::Other };
            headers.echo_request = echo;
        }
        return Some(());
    };
    let size = match protocol {
        Protocol::Tcp => 20,
        Protocol::Sctp => 12,
        Protocol::Udp | Protocol::Any => 8,
    };
    if headers.length < at - headers.ip + size || !ctx.reach(at + size) {
        return None;
    }
    headers.kind = Kind::Transport;
    headers.transport_length = size as u8;
    headers.source_port = u16::from_be(ctx.read(at)?);
    headers.destination_port = u16::from_be(ctx.read(at + 2)?);
    headers.shows = seen::PACKET;
    match protocol {
        Protocol::Tcp => {
            let flags: u8 = ctx.read(at + 13)?;
            let offset: u8 = ctx.read(at + 12)?;
            headers.transport_length = (offset >> 4) * 4;
            headers.begins = flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN;
            headers.opens = headers.begins;
            headers.goes_on = flags & (TCP_SYN | TCP_RST) == 0;
            if flags & TCP_FIN != 0 {
                headers.shows |= seen::FIN;
            }
            if flags & TCP_RST != 0 {
                headers.shows |= seen::RST;
            }
        }
        Protocol::Sctp => {
            // A packet may be nothing but its common header.
            let chunk = if headers.length > at - headers.ip + size && ctx.reach(at + size + 1) {
                ctx.read(at + size)?
            } else {
                0_u8
            };
            headers.begins = chunk == INIT;
            headers.opens = headers.begins;
            match chunk {
                SHUTDOWN | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => headers.shows |= seen::FIN,
                ABORT => headers.shows |= seen::RST,
                _ => {}
            }
        }
        Protocol::Udp | Protocol::Any => headers.opens = true,
    }
    Some(())
}
