//! Fragments: only the first one of a datagram carries the ports.

use proxy_common::FragmentPorts;

use super::{
    headers::{Headers, protocol},
    tables::{FragmentOf, Key, PacketIp},
    work::Work,
};
use crate::count::count;

/// Sets the key of the packet's flow. The ports of a later fragment are those of the first; false when that was not seen.
#[inline(always)]
pub(super) fn set_key<I: PacketIp>(work: &mut Work<I::Words>) -> bool {
    let headers = &work.headers;
    let Some(protocol) = protocol(headers.protocol) else { return false };
    let mut ports = FragmentPorts { source: headers.source_port, destination: headers.destination_port };
    if headers.is_later_fragment() {
        let Some(first) = of::<I>(headers).and_then(I::fragment) else {
            count(|counters| &mut counters.fragment_unknown);
            return false;
        };
        ports = first;
    }
    work.key = Key::new(headers.source, headers.destination, ports.source, ports.destination, protocol);
    true
}

/// Keeps the ports of a first fragment for those that follow.
#[inline(always)]
pub(super) fn remember<I: PacketIp>(headers: &Headers<I::Words>) {
    let ports = FragmentPorts { source: headers.source_port, destination: headers.destination_port };
    if let Some(of) = of::<I>(headers) {
        I::keep_fragment(of, &ports);
    }
}

#[inline(always)]
fn of<I: PacketIp>(headers: &Headers<I::Words>) -> Option<FragmentOf<I::Words>> {
    let Headers { source, destination, id, .. } = *headers;
    Some(FragmentOf { source, destination, id, protocol: protocol(headers.protocol)? })
}
