use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use proxy_common::{Link, LinkRole};

use crate::{
    datapath::{Error, maps::hash::HashTable, sys},
    links::{self, Topology},
};

const NAME: &str = "LINKS";
/// Key of the entry for links that the programs meet before the agent has heard of them.
const UNHEARD_OF: u32 = 0;

/// The map `LINKS`, and what is in it.
#[derive(Debug)]
pub(crate) struct LinkTable {
    map: HashTable<u32, Link>,
    entries: BTreeMap<u32, Link>,
}

impl LinkTable {
    /// Opens the map that is pinned in `directory`.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(NAME);
        let map = HashTable::new(NAME, sys::open_pin(&path).map_err(Error::path("opening", path))?)?;
        let entries = map.entries()?.into_iter().collect();
        Ok(Self { map, entries })
    }

    /// What it holds, by interface index.
    pub(crate) fn entries(&self) -> &BTreeMap<u32, Link> {
        &self.entries
    }

    /// Whether frames may be redirected to a link from XDP.
    pub(super) fn has_native_xdp(&self, interface: u32) -> bool {
        self.entries.get(&interface).is_some_and(|link| link.xdp != 0)
    }

    /// Whether an XDP program of ours may see what comes in by a link before TC does.
    pub(super) fn may_have_xdp_first(&self, interface: u32) -> bool {
        self.entries.get(&interface).is_some_and(|link| link.xdp_first != 0)
    }

    /// Makes the map hold exactly `wanted`, writing what differs. Returns what could not be done.
    pub(super) fn set(&mut self, wanted: &BTreeMap<u32, Link>) -> Vec<String> {
        let (keys, values): (Vec<u32>, Vec<Link>) =
            wanted.iter().filter(|(key, link)| self.entries.get(*key) != Some(*link)).unzip();
        let stale: Vec<u32> = self.entries.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        let mut problems = Vec::new();
        let failed = self.map.put(&keys, &values);
        for (at, (key, value)) in keys.iter().zip(values).enumerate() {
            match failed.iter().find(|(failed, _)| *failed == at) {
                Some((_, error)) => problems.push(format!("writing link {key} to map {NAME}: {error}")),
                None => drop(self.entries.insert(*key, value)),
            }
        }
        let failed = self.map.remove(&stale);
        for (at, key) in stale.iter().enumerate() {
            match failed.iter().find(|(failed, _)| *failed == at) {
                Some((_, error)) => problems.push(format!("removing link {key} from map {NAME}: {error}")),
                None => drop(self.entries.remove(key)),
            }
        }
        problems
    }
}

/// What the map should hold. `native` are the links to which frames may be redirected from XDP, `first` those on which an XDP
/// program of ours may see packets before TC does.
pub(super) fn wanted(
    topology: &Topology,
    native: impl Fn(u32) -> bool,
    first: impl Fn(u32) -> bool,
) -> BTreeMap<u32, Link> {
    let entry = |role, source4: Option<Ipv4Addr>, source6: Option<Ipv6Addr>| Link {
        address4: source4.map_or([0; 4], |address| address.octets()),
        address6: source6.map_or([0; 16], |address| address.octets()),
        role,
        xdp: 0,
        xdp_first: 0,
        reserved: 0,
    };
    let of = |link: &links::Link| Link {
        xdp: native(link.index).into(),
        xdp_first: first(link.index).into(),
        ..entry(link.role, link.source4, link.source6)
    };
    let unheard_of = entry(LinkRole::Workload, topology.primary4, topology.primary6);
    topology.links.iter().map(|link| (link.index, of(link))).chain([(UNHEARD_OF, unheard_of)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_has_an_entry_and_so_have_those_to_come() {
        let link = |index, role, source: [u8; 4]| links::Link {
            index,
            name: format!("eth{index}"),
            role,
            addresses: Vec::new(),
            source4: Some(source.into()),
            source6: None,
            ethernet: true,
            hides_tags: false,
            mtu: 1500,
        };
        let topology = Topology {
            links: vec![link(2, LinkRole::Uplink, [10, 0, 0, 2]), link(3, LinkRole::None, [10, 0, 0, 1])],
            primary4: Some([10, 0, 0, 1].into()),
            ..Topology::default()
        };
        let wanted = wanted(&topology, |index| index == 2, |index| index == 2);
        let parts =
            wanted.iter().map(|(index, link)| (*index, link.role, link.address4, link.xdp, link.xdp_first));
        let parts: Vec<_> = parts.collect();
        assert_eq!(
            parts,
            [
                (0, LinkRole::Workload, [10, 0, 0, 1], 0, 0),
                (2, LinkRole::Uplink, [10, 0, 0, 2], 1, 1),
                (3, LinkRole::None, [10, 0, 0, 1], 0, 0)
            ]
        );
        assert_eq!(wanted[&2].address6, [0; 16]);
    }
}
