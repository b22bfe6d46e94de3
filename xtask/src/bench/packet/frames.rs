//! Frames of a flow, as they would come in.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use etherparse::{EtherType, Ethernet2Header, PacketBuilder, SlicedPacket, TransportSlice};

/// Bytes of every frame.
const LENGTH: usize = 128;

const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

/// A segment of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    SynAck,
    Ack,
}

/// A TCP segment in an Ethernet frame.
pub(super) fn tcp(from: SocketAddr, to: SocketAddr, segment: Segment) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(MACS.0, MACS.1);
    let (ip, headers) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (ethernet.ipv4(from.octets(), to.octets(), 64), 54),
        (IpAddr::V6(from), IpAddr::V6(to)) => (ethernet.ipv6(from.octets(), to.octets(), 64), 74),
        _ => bail!("{from} and {to} are of two families"),
    };
    let tcp = ip.tcp(from.port(), to.port(), 1, 1000);
    let tcp = match segment {
        Segment::Syn => tcp.syn(),
        Segment::SynAck => tcp.syn().ack(1),
        Segment::Ack => tcp.ack(1),
    };
    let mut frame = Vec::with_capacity(LENGTH);
    tcp.write(&mut frame, &[0; LENGTH][headers..]).context("building a frame")?;
    Ok(frame)
}

/// A frame that is neither IPv4 nor IPv6.
pub(super) fn foreign() -> Result<Vec<u8>> {
    let header = Ethernet2Header { source: MACS.0, destination: MACS.1, ether_type: EtherType(0x88b5) };
    let mut frame = Vec::with_capacity(LENGTH);
    header.write(&mut frame).context("building a frame")?;
    frame.resize(LENGTH, 0);
    Ok(frame)
}

/// Where a frame comes from and where it goes.
pub(super) fn ends(frame: &[u8]) -> Result<(SocketAddr, SocketAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).context("reading a frame")?;
    let (from, to): (IpAddr, IpAddr) = match packet.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => bail!("no IP packet"),
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { bail!("no TCP segment") };
    Ok(((from, tcp.source_port()).into(), (to, tcp.destination_port()).into()))
}
