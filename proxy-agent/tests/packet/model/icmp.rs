//! ICMP errors that others send about packets of a flow.

use super::{Answer, Content, DROP, Model, PASS, Rewritten, rewrite::addresses};
use crate::{
    flows::Tuple,
    parse::{self, Frame, Ip},
    sums,
};
use proxy_common::{Onward, Protocol};

/// Length of the ICMP header before the quotation.
const HEADER: usize = 8;

impl Model<'_> {
    /// Translates an ICMP error as the packet that it quotes was translated, backwards.
    pub(super) fn icmp_error(&mut self, ip: &Ip) -> Answer {
        let frame = &self.run.frame[..ip.end];
        let quoted = match parse::quoted(frame, ip.transport + HEADER, ip.source) {
            Frame::Ip(quoted) => quoted,
            Frame::Foreign => return PASS,
            Frame::Malformed => {
                self.or_malformed = true;
                return PASS;
            }
        };
        if quoted.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return PASS;
        }
        let Some(ports) = parse::quoted_ports(frame, &quoted) else {
            self.or_malformed = true;
            return PASS;
        };
        // A quotation that contradicts itself may be seen through.
        self.unspecified = quoted.transport + 8 > parse::declared_end(frame, &quoted);
        let key = super::tuple(&quoted, &ports).flip();
        let Some((_, entry)) = self.find(&key).filter(|(_, entry)| entry.hook == self.hook()) else {
            return PASS;
        };
        let new = entry.rewritten(key.protocol);
        let mut rewritten = Rewritten { frame: self.run.frame.clone(), checksums: Vec::new() };
        quote(&mut rewritten, ip, &quoted, ports.protocol, &new.flip());
        // A router's address stays, where the stack takes it from there.
        let stays = entry.onward == Onward::Stack && ip.source != key.source;
        let from = if stays { ip.source } else { new.source };
        let before = covered(&self.run.frame, ip);
        rewritten.put_addresses(ip, from, new.destination);
        let after = covered(&rewritten.frame, ip);
        rewritten.move_checksum(ip.transport + 2, before, after);
        let (verdict, content) = self.onward(ip, entry.onward, rewritten, new.destination);
        match content {
            Content::Nothing => {}
            // There are no errors about errors (RFC 1122 section 3.2.2).
            Content::Error(_) | Content::Reset => {
                self.counts.icmp_sent = 0;
                self.counts.icmp_suppressed = 0;
                return DROP;
            }
            _ => self.counts.icmp_translated += 1,
        }
        (verdict, content)
    }
}

/// Rewrites the quoted packet.
fn quote(rewritten: &mut Rewritten, ip: &Ip, quoted: &Ip, protocol: Protocol, new: &Tuple) {
    let at = quoted.transport;
    let sum = |frame: &[u8]| (addresses(frame, quoted) + sums::sum(&frame[at..at + 4])) % 65_535;
    let before = sum(&rewritten.frame);
    rewritten.put_addresses(quoted, new.source, new.destination);
    rewritten.put_ports(at, new);
    let after = sum(&rewritten.frame);
    let checksum = match protocol {
        Protocol::Tcp => at + 16,
        Protocol::Udp => at + 6,
        _ => return,
    };
    let absent = protocol == Protocol::Udp && parse::word(&rewritten.frame, checksum) == Some(0);
    if checksum + 2 <= ip.end && !absent {
        rewritten.move_checksum(checksum, before, after);
    }
}

/// Sum of everything that the checksum of an ICMP message covers, but for itself.
fn covered(frame: &[u8], ip: &Ip) -> u32 {
    let message = &frame[ip.transport..ip.end];
    let pseudo = if ip.source.is_ipv4() { 0 } else { addresses(frame, ip) };
    (sums::sum(&message[..2]) + sums::sum(&message[4..]) + pseudo) % 65_535
}
