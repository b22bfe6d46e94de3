//! A packet with other addresses and ports.

use std::net::IpAddr;

use proxy_common::Protocol;

use crate::{
    flows::Tuple,
    parse::{self, Ip},
    sums,
};

/// A frame that was changed.
#[derive(Clone, Debug)]
pub(crate) struct Rewritten {
    pub(crate) frame: Vec<u8>,
    /// Where Internet checksums stand: of these, 0 and 65,535 are the same.
    pub(crate) checksums: Vec<usize>,
}

impl Rewritten {
    /// `frame` with the addresses and ports of `new`; without the ports where `protocol` is `None`, in a
    /// fragment that has none.
    pub(crate) fn new(frame: &[u8], ip: &Ip, protocol: Option<Protocol>, new: &Tuple) -> Self {
        let mut this = Self { frame: frame.to_vec(), checksums: Vec::new() };
        this.put_addresses(ip, new.source, new.destination);
        let Some(protocol) = protocol else { return this };
        let at = ip.transport;
        let old_ports = sums::sum(&frame[at..at + 4]);
        this.put_ports(at, new);
        let (old, new) = (
            (addresses(frame, ip) + old_ports) % 65_535,
            (addresses(&this.frame, ip) + sums::sum(&this.frame[at..at + 4])) % 65_535,
        );
        match protocol {
            Protocol::Tcp => this.move_checksum(at + 16, old, new),
            Protocol::Udp if parse::word(frame, at + 6) == Some(0) => {}
            Protocol::Udp => this.move_checksum(at + 6, old, new),
            _ => this.move_crc(frame, ip),
        }
        this
    }

    /// The hop limit.
    pub(crate) fn hops(&self, ip: &Ip) -> u8 {
        self.frame[hops_at(ip)]
    }

    /// Who sends the frame to whom.
    pub(crate) fn put_macs(&mut self, to: [u8; 6], from: [u8; 6]) {
        self.frame[..6].copy_from_slice(&to);
        self.frame[6..12].copy_from_slice(&from);
    }

    /// One hop further.
    pub(crate) fn hop(&mut self, ip: &Ip) {
        let at = hops_at(ip);
        let word = at & !1;
        let old = sums::sum(&self.frame[word..word + 2]);
        self.frame[at] -= 1;
        if ip.source.is_ipv4() {
            let new = sums::sum(&self.frame[word..word + 2]);
            self.move_checksum(ip.start + 10, old, new);
        }
    }

    /// Replaces the addresses of an IP header, here or in a quotation.
    pub(super) fn put_addresses(&mut self, ip: &Ip, source: IpAddr, destination: IpAddr) {
        let old = addresses(&self.frame, ip);
        let at = address_range(ip);
        let new: Vec<u8> = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
            _ => panic!("{source} and {destination} are of two families"),
        };
        self.frame[at].copy_from_slice(&new);
        if ip.source.is_ipv4() {
            let new = addresses(&self.frame, ip);
            self.move_checksum(ip.start + 10, old, new);
        }
    }

    pub(super) fn put_ports(&mut self, at: usize, new: &Tuple) {
        self.frame[at..at + 2].copy_from_slice(&new.source_port.to_be_bytes());
        self.frame[at + 2..at + 4].copy_from_slice(&new.destination_port.to_be_bytes());
    }

    pub(super) fn move_checksum(&mut self, at: usize, old: u32, new: u32) {
        let checksum = sums::moved(parse::word(&self.frame, at).unwrap(), old, new);
        self.frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        self.checksums.push(at);
    }

    /// SCTP's checksum does not cover addresses. It is as wrong afterwards as it was: the difference stays.
    fn move_crc(&mut self, old: &[u8], ip: &Ip) {
        let packet = ip.transport..ip.end;
        if old[packet.clone()][..4] == self.frame[packet.clone()][..4] {
            return;
        }
        let field = ip.transport + 8..ip.transport + 12;
        let wrong_by =
            u32::from_le_bytes(old[field.clone()].try_into().unwrap()) ^ sums::crc32c(&old[packet.clone()]);
        let crc = sums::crc32c(&self.frame[packet]) ^ wrong_by;
        self.frame[field].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Sum of the addresses of an IP header.
pub(super) fn addresses(frame: &[u8], ip: &Ip) -> u32 {
    sums::sum(&frame[address_range(ip)])
}

fn address_range(ip: &Ip) -> std::ops::Range<usize> {
    if ip.source.is_ipv4() { ip.start + 12..ip.start + 20 } else { ip.start + 8..ip.start + 40 }
}

fn hops_at(ip: &Ip) -> usize {
    ip.start + if ip.source.is_ipv4() { 8 } else { 7 }
}
