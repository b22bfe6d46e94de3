use std::{collections::BTreeMap, path::Path};

use proxy_common::{Link, LinkRole};

use crate::{
    datapath::{Error, maps::hash::HashTable, sys},
    links::Topology,
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

/// What the map should hold. `native` are the links on which frames may be redirected from XDP.
pub(super) fn wanted(topology: &Topology, native: impl Fn(u32) -> bool) -> BTreeMap<u32, Link> {
    let entry =
        |role, source4: Option<std::net::Ipv4Addr>, source6: Option<std::net::Ipv6Addr>, xdp: bool| Link {
            address4: source4.map_or([0; 4], |address| address.octets()),
            address6: source6.map_or([0; 16], |address| address.octets()),
            role,
            xdp: xdp.into(),
            reserved: [0; 2],
        };
    let unheard_of = entry(LinkRole::Workload, topology.primary4, topology.primary6, false);
    topology
        .links
        .iter()
        .map(|link| (link.index, entry(link.role, link.source4, link.source6, native(link.index))))
        .chain([(UNHEARD_OF, unheard_of)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links;

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
        let wanted = wanted(&topology, |index| index == 2);
        let parts: Vec<_> =
            wanted.iter().map(|(index, link)| (*index, link.role, link.address4, link.xdp)).collect();
        assert_eq!(
            parts,
            [
                (0, LinkRole::Workload, [10, 0, 0, 1], 0),
                (2, LinkRole::Uplink, [10, 0, 0, 2], 1),
                (3, LinkRole::None, [10, 0, 0, 1], 0)
            ]
        );
        assert_eq!(wanted[&2].address6, [0; 16]);
    }
}
