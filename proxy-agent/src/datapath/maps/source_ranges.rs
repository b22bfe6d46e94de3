use std::os::fd::OwnedFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proxy_common::{SOURCE_RANGE_ID_BITS, SourceRange4, SourceRange6, SourceRangeKey4, SourceRangeKey6};

use super::hash::HashTable;
use crate::datapath::{
    Error,
    tables::{Failures, SourceRange},
};

/// What every entry holds.
const ALLOWED: u8 = 1;

/// The source ranges of both families.
#[derive(Debug)]
pub(super) struct SourceRangeTable {
    v4: HashTable<SourceRangeKey4, u8>,
    v6: HashTable<SourceRangeKey6, u8>,
}

/// Ranges of both families, as keys and with their places in what was asked for.
#[derive(Default)]
struct Keys {
    v4: Vec<SourceRangeKey4>,
    v6: Vec<SourceRangeKey6>,
    places: [Vec<usize>; 2],
}

impl SourceRangeTable {
    pub(super) fn new(v4: OwnedFd, v6: OwnedFd) -> Result<Self, Error> {
        Ok(Self { v4: HashTable::new("SOURCE_RANGES4", v4)?, v6: HashTable::new("SOURCE_RANGES6", v6)? })
    }

    /// Every range.
    pub(super) fn entries(&self) -> Result<Vec<SourceRange>, Error> {
        let mut ranges = Vec::new();
        for (key, _) in self.v4.entries()? {
            ranges.push(of_key4(&key).ok_or_else(|| damaged("SOURCE_RANGES4", &key))?);
        }
        for (key, _) in self.v6.entries()? {
            ranges.push(of_key6(&key).ok_or_else(|| damaged("SOURCE_RANGES6", &key))?);
        }
        Ok(ranges)
    }

    pub(super) fn put(&mut self, ranges: &[SourceRange]) -> Failures {
        let keys = Keys::new(ranges);
        let v4 = self.v4.put(&keys.v4, &vec![ALLOWED; keys.v4.len()]);
        let v6 = self.v6.put(&keys.v6, &vec![ALLOWED; keys.v6.len()]);
        keys.failures(v4, v6)
    }

    pub(super) fn remove(&mut self, ranges: &[SourceRange]) -> Failures {
        let keys = Keys::new(ranges);
        let (v4, v6) = (self.v4.remove(&keys.v4), self.v6.remove(&keys.v6));
        keys.failures(v4, v6)
    }
}

impl Keys {
    fn new(ranges: &[SourceRange]) -> Self {
        let mut keys = Self::default();
        for (place, SourceRange { service_port, clients }) in ranges.iter().enumerate() {
            let service_port = service_port.to_ne_bytes();
            let prefix_len = SOURCE_RANGE_ID_BITS + u32::from(clients.prefix_len());
            match clients {
                IpNet::V4(clients) => {
                    let address = clients.network().octets();
                    let range = SourceRange4 { service_port, address };
                    keys.v4.push(SourceRangeKey4 { prefix_len, range });
                    keys.places[0].push(place);
                }
                IpNet::V6(clients) => {
                    let address = clients.network().octets();
                    let range = SourceRange6 { service_port, address };
                    keys.v6.push(SourceRangeKey6 { prefix_len, range });
                    keys.places[1].push(place);
                }
            }
        }
        keys
    }

    fn failures(&self, v4: Failures, v6: Failures) -> Failures {
        let [places4, places6] = &self.places;
        let v4 = v4.into_iter().map(|(at, error)| (places4[at], error));
        v4.chain(v6.into_iter().map(|(at, error)| (places6[at], error))).collect()
    }
}

fn of_key4(key: &SourceRangeKey4) -> Option<SourceRange> {
    let prefix_len = u8::try_from(key.prefix_len.checked_sub(SOURCE_RANGE_ID_BITS)?).ok()?;
    let clients = Ipv4Net::new(key.range.address.into(), prefix_len).ok()?.trunc();
    Some(SourceRange { service_port: u32::from_ne_bytes(key.range.service_port), clients: clients.into() })
}

fn of_key6(key: &SourceRangeKey6) -> Option<SourceRange> {
    let prefix_len = u8::try_from(key.prefix_len.checked_sub(SOURCE_RANGE_ID_BITS)?).ok()?;
    let clients = Ipv6Net::new(key.range.address.into(), prefix_len).ok()?.trunc();
    Some(SourceRange { service_port: u32::from_ne_bytes(key.range.service_port), clients: clients.into() })
}

fn damaged(map: &'static str, key: &impl std::fmt::Debug) -> Error {
    Error::Damaged { map, key: format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_covers_the_id_and_the_range() {
        let range = |text: &str| SourceRange { service_port: 7, clients: text.parse().unwrap() };
        let ranges =
            ["0.0.0.0/0", "fd00::/8", "192.0.2.0/24", "2001:db8::1/128", "203.0.113.9/32"].map(range);
        let keys = Keys::new(&ranges);
        assert_eq!(keys.v4.iter().map(|key| key.prefix_len).collect::<Vec<_>>(), [32, 56, 64]);
        assert_eq!(keys.v6.iter().map(|key| key.prefix_len).collect::<Vec<_>>(), [40, 160]);
        let [id0, id1, id2, id3] = 7_u32.to_ne_bytes();
        assert_eq!(bytemuck::bytes_of(&keys.v4[1])[4..], [id0, id1, id2, id3, 192, 0, 2, 0]);
        let back = keys.v4.iter().map(of_key4).chain(keys.v6.iter().map(of_key6));
        let back: Vec<_> = back.map(Option::unwrap).collect();
        let of_family = |v4: bool| ranges.iter().filter(move |range| range.clients.addr().is_ipv4() == v4);
        assert_eq!(back, of_family(true).chain(of_family(false)).copied().collect::<Vec<_>>());
        let failed = |at: usize| vec![(at, std::io::Error::from_raw_os_error(libc::ENOSPC))];
        let places: Vec<_> =
            keys.failures(failed(1), failed(0)).into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [2, 1], "places in what was asked for");
    }

    #[test]
    fn a_prefix_that_is_too_short_or_too_long_is_no_range() {
        let key =
            Keys::new(&[SourceRange { service_port: 7, clients: "192.0.2.0/24".parse().unwrap() }]).v4[0];
        for prefix_len in [0, 31, 65, u32::MAX] {
            assert_eq!(of_key4(&SourceRangeKey4 { prefix_len, ..key }), None, "{prefix_len}");
        }
    }
}
