//! Frames, built from what they should be.

use std::net::IpAddr;

use proxy_common::Protocol;

use crate::{flows::Tuple, sums};

/// An IP packet in the making.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hops: u8,
    /// IPv4: options, in units of 4 bytes. IPv6: extension headers, by their numbers.
    pub(crate) options: u8,
    pub(crate) extensions: Vec<u8>,
    pub(crate) dont_fragment: bool,
    pub(crate) id: u32,
    /// Offset in units of 8 bytes, and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    /// Transport header and all after it.
    pub(crate) body: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8, body: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            hops: 64,
            options: 0,
            extensions: Vec::new(),
            dont_fragment: true,
            id: 1,
            fragment: None,
            body,
        }
    }

    /// A TCP, UDP or SCTP packet with a right checksum. `flags` are TCP's flags or the type of SCTP's first
    /// chunk.
    pub(crate) fn transport(tuple: &Tuple, flags: u8, payload: usize) -> Self {
        let payload: Vec<u8> = (0..payload).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let ports = [tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes()].concat();
        let mut body = match tuple.protocol {
            Protocol::Tcp => {
                [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0], &payload].concat()
            }
            Protocol::Udp => {
                let length = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
                [&ports[..], &length, &[0, 0], &payload].concat()
            }
            _ => {
                let length = u16::try_from(payload.len() + 4).unwrap().to_be_bytes();
                [&ports[..], &[0, 0, 0, 9, 0, 0, 0, 0, flags, 3], &length, &payload].concat()
            }
        };
        let protocol = tuple.protocol as u8;
        let checksum =
            sums::internet(&[&pseudo(tuple.source, tuple.destination, protocol, body.len()), &body]);
        match tuple.protocol {
            Protocol::Tcp => body[16..18].copy_from_slice(&checksum.to_be_bytes()),
            Protocol::Udp => body[6..8].copy_from_slice(&checksum.to_be_bytes()),
            _ => {
                let crc = sums::crc32c(&body).to_le_bytes();
                body[8..12].copy_from_slice(&crc);
            }
        }
        Self::new(tuple.source, tuple.destination, protocol, body)
    }

    /// An ICMP or ICMPv6 message with a right checksum.
    pub(crate) fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Self {
        let protocol = if source.is_ipv4() { 1 } else { 58 };
        let mut body = [&[kind, code, 0, 0], rest].concat();
        let pseudo = pseudo(source, destination, protocol, body.len());
        let covered: &[&[u8]] = if source.is_ipv4() { &[&body] } else { &[&pseudo, &body] };
        let checksum = sums::internet(covered);
        body[2..4].copy_from_slice(&checksum.to_be_bytes());
        Self::new(source, destination, protocol, body)
    }

    /// The packet without an Ethernet header.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = 5 + self.options;
                let mut header = vec![1; usize::from(words) * 4];
                let total = u16::try_from(header.len() + self.body.len()).unwrap();
                let (offset, more) = self.fragment.unwrap_or((0, false));
                let place = offset | u16::from(more) << 13 | u16::from(self.dont_fragment) << 14;
                header[..2].copy_from_slice(&[0x40 | words, 0]);
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[4..6].copy_from_slice(&self.id.to_be_bytes()[2..]);
                header[6..8].copy_from_slice(&place.to_be_bytes());
                header[8..12].copy_from_slice(&[self.hops, self.protocol, 0, 0]);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let checksum = sums::internet(&[&header]);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                [header, self.body.clone()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (first, extensions) = self.extension_headers();
                let length = u16::try_from(extensions.len() + self.body.len()).unwrap().to_be_bytes();
                let fixed = [&[0x60, 0, 0, 0], &length[..], &[first, self.hops]].concat();
                [fixed, source.octets().into(), destination.octets().into(), extensions, self.body.clone()]
                    .concat()
            }
            _ => panic!("a packet of two families"),
        }
    }

    /// The frame, between two made-up neighbours.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let kind: [u8; 2] = if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&[2, 0, 0, 0, 0xaa, 1, 2, 0, 0, 0, 0xbb, 2], &kind[..], &self.bytes()].concat()
    }

    /// The pieces of this packet, cut after `at` bytes of its body, a multiple of 8.
    pub(crate) fn cut(&self, at: usize) -> [Self; 2] {
        let piece = |offset: usize, more, body: &[u8]| Self {
            fragment: Some((u16::try_from(offset / 8).unwrap(), more)),
            dont_fragment: false,
            body: body.to_vec(),
            ..self.clone()
        };
        [piece(0, true, &self.body[..at]), piece(at, false, &self.body[at..])]
    }

    /// Number of the first header after the fixed one, and the extension headers.
    fn extension_headers(&self) -> (u8, Vec<u8>) {
        let mut numbers = self.extensions.clone();
        if self.fragment.is_some() && !numbers.contains(&44) {
            numbers.push(44);
        }
        let mut bytes = Vec::new();
        for (at, number) in numbers.iter().enumerate() {
            let next = numbers.get(at + 1).copied().unwrap_or(self.protocol);
            match number {
                44 => {
                    let (offset, more) = self.fragment.unwrap_or((0, false));
                    let place = offset << 3 | u16::from(more);
                    bytes.extend([next, 0]);
                    bytes.extend(place.to_be_bytes());
                    bytes.extend(self.id.to_be_bytes());
                }
                // 4 more words than the two that are not counted.
                51 => bytes.extend([&[next, 4][..], &[7; 22]].concat()),
                _ => bytes.extend([&[next, 1][..], &[0; 14]].concat()),
            }
        }
        (numbers.first().copied().unwrap_or(self.protocol), bytes)
    }
}

/// What the checksums of TCP, UDP and ICMPv6 cover besides the message.
fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [octets(source), octets(destination), length.into(), vec![0, 0, 0, protocol]].concat()
}
