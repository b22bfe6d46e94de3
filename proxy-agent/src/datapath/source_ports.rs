//! The ports from which packets are sent in a client's place: none that the node's own sockets may have, for
//! answers to those would be taken for answers to the client.

use std::{fs, ops::RangeInclusive, str::FromStr};

use super::Error;

/// Where the kernel picks ports for sockets that were not bound to one.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Default `--service-node-port-range` of the API server.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Below are the ports of well-known servers.
const UNPRIVILEGED: u16 = 1024;
/// With fewer, clients of one busy endpoint would soon run out.
const FEWEST: u32 = 1024;

/// A range of ports, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl SourcePorts {
    /// How many ports there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.last).saturating_sub(u32::from(self.first)) + 1
    }

    /// The ports that were asked for, or the most that are free on this node.
    pub(crate) fn choose(asked: Option<Self>) -> Result<Self, Error> {
        let text = fs::read_to_string(EPHEMERAL).map_err(Error::path("reading", EPHEMERAL))?;
        let ephemeral = parse_range(&text).unwrap_or(32_768..=60_999);
        if let Some(ports) = asked {
            if ports.first <= *ephemeral.end() && *ephemeral.start() <= ports.last {
                tracing::warn!(
                    source_ports = ?ports,
                    ip_local_port_range = ?ephemeral,
                    "--source-ports has ports that sockets of this node may have too: answers can go astray"
                );
            }
            return enough(Some(ports), "--source-ports has");
        }
        enough(free(&ephemeral), "net.ipv4.ip_local_port_range and the node ports 30000-32767 leave")
    }
}

fn enough(ports: Option<SourcePorts>, what: &str) -> Result<SourcePorts, Error> {
    let count = ports.map_or(0, |ports| ports.count());
    ports.filter(|_| count >= FEWEST).ok_or_else(|| {
        Error::SourcePorts(format!("{what} {count} ports in one piece, and {FEWEST} are the least"))
    })
}

/// `FIRST-LAST`.
impl FromStr for SourcePorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |port: &str| port.trim().parse::<u16>().ok().filter(|port| *port > 0);
        text.split_once('-')
            .and_then(|(first, last)| Some(Self { first: parse(first)?, last: parse(last)? }))
            .filter(|ports| ports.first <= ports.last)
            .ok_or_else(|| "must be FIRST-LAST, such as 1024-29999".to_owned())
    }
}

/// The largest range that is neither of sockets nor of node ports.
fn free(ephemeral: &RangeInclusive<u16>) -> Option<SourcePorts> {
    let mut taken = [ephemeral.clone(), NODE_PORTS];
    taken.sort_by_key(|range| *range.start());
    let mut ranges = Vec::new();
    let mut next = Some(UNPRIVILEGED);
    for range in taken {
        let Some(first) = next else { break };
        if let Some(last) = range.start().checked_sub(1).filter(|last| *last >= first) {
            ranges.push(SourcePorts { first, last });
        }
        next = range.end().checked_add(1).map(|after| after.max(first));
    }
    ranges.extend(next.map(|first| SourcePorts { first, last: u16::MAX }));
    // The first of those that are equally large.
    ranges.into_iter().rev().max_by_key(SourcePorts::count)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(|port| port.parse().ok());
    Some(ends.next()??..=ends.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(ephemeral: RangeInclusive<u16>, first: u16, last: u16) {
        assert_eq!(free(&ephemeral), Some(SourcePorts { first, last }), "{ephemeral:?}");
    }

    #[test]
    fn the_largest_free_range_is_taken() {
        expect(32_768..=60_999, 1024, 29_999);
        expect(1024..=65_000, 65_001, 65_535);
        expect(10_000..=65_535, 1024, 9_999);
        expect(1..=40_000, 40_001, 65_535);
        expect(25_000..=30_500, 32_768, 65_535);
        expect(31_000..=32_000, 32_768, 65_535);
        assert_eq!(free(&(1..=65_535)), None);
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
    }

    #[test]
    fn too_few_ports_are_refused_with_the_flag_that_helps() {
        let few = SourcePorts { first: 65_001, last: 65_535 };
        let error = enough(Some(few), "the node leaves").unwrap_err().to_string();
        assert!(error.contains("535 ports") && error.contains("--source-ports"), "{error}");
        let least = SourcePorts { first: 1, last: 1024 };
        assert_eq!(enough(Some(least), "it has").unwrap(), least);
        assert!(enough(None, "the node leaves").unwrap_err().to_string().contains(" 0 ports"));
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        assert_eq!("1024-29999".parse(), Ok(SourcePorts { first: 1024, last: 29_999 }));
        for wrong in ["", "1024", "0-10", "20-10", "1-70000", "a-b"] {
            assert!(wrong.parse::<SourcePorts>().is_err(), "{wrong}");
        }
    }
}
