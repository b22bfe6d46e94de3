use std::net::IpAddr;

use proxy_common::{FILTER_WORDS, FRONTEND_SOURCE_RANGES, Frontend, FrontendKind};

use super::{Programmer, index};
use crate::datapath::tables::{FrontendKey, Tables, filter_position};

/// What is remembered of a frontend entry: enough to know whose it is and whether it would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) service_port: u32,
    seal: [u32; 2],
    /// Whether it makes its address a cluster IP; the entry for unknown ports does not.
    cluster_ip: bool,
    /// Whether it asks for the client to be in the source ranges of the service port.
    pub(super) restricted: bool,
}

/// How many frontends an address has, the entry for unknown ports not among them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    frontends: u32,
    cluster_ips: u32,
}

/// What addresses have stopped to be in one step.
#[derive(Debug, Default)]
pub(super) struct Vacated {
    /// Without any frontend. Their bits in the filter stay set until [`Programmer::forget_address`].
    pub(super) addresses: Vec<IpAddr>,
    /// Without a frontend as a cluster IP. They may have got one again since.
    pub(super) cluster_ips: Vec<IpAddr>,
}

impl Entry {
    pub(super) fn new(key: &FrontendKey, value: &Frontend) -> Self {
        Self {
            service_port: value.service_port,
            seal: bytemuck::cast(value.seal),
            cluster_ip: value.kind == FrontendKind::ClusterIp && !key.is_any_port(),
            restricted: value.flags & FRONTEND_SOURCE_RANGES != 0,
        }
    }
}

impl<T: Tables> Programmer<T> {
    /// Notes an entry as being in its map; returns the one that it replaces. The first one of an address sets
    /// the address' bit in the filter.
    pub(super) fn set_entry(
        &mut self,
        key: FrontendKey,
        entry: Entry,
        vacated: &mut Vacated,
    ) -> Option<Entry> {
        let before = self.frontends.insert(key, entry);
        self.frontend_counts[index(key.family())] += usize::from(before.is_none());
        if !key.is_any_port() {
            self.recount(key.address(), before, Some(entry), vacated);
        }
        before
    }

    /// Notes an entry as not being in its map.
    pub(super) fn clear_entry(&mut self, key: FrontendKey, vacated: &mut Vacated) {
        let Some(before) = self.frontends.remove(&key) else { return };
        self.frontend_counts[index(key.family())] -= 1;
        if !key.is_any_port() {
            self.recount(key.address(), Some(before), None, vacated);
        }
    }

    /// Notes an entry that did not get into its map as being what was there before.
    pub(super) fn revert_entry(&mut self, key: FrontendKey, before: Option<Entry>, vacated: &mut Vacated) {
        match before {
            Some(before) => drop(self.set_entry(key, before, vacated)),
            None => self.clear_entry(key, vacated),
        }
    }

    /// Whether some service port has this address as a cluster IP: then the ports that it does not have are
    /// refused. At all other addresses they are somebody else's.
    pub(super) fn has_cluster_ip(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some_and(|uses| uses.cluster_ips > 0)
    }

    fn recount(
        &mut self,
        address: IpAddr,
        before: Option<Entry>,
        after: Option<Entry>,
        vacated: &mut Vacated,
    ) {
        let is_cluster_ip = |entry: Option<Entry>| u32::from(entry.is_some_and(|entry| entry.cluster_ip));
        let uses = self.addresses.entry(address).or_default();
        let was = *uses;
        uses.frontends = was.frontends + u32::from(after.is_some()) - u32::from(before.is_some());
        uses.cluster_ips = was.cluster_ips + is_cluster_ip(after) - is_cluster_ip(before);
        let now = *uses;
        if was.cluster_ips > 0 && now.cluster_ips == 0 {
            vacated.cluster_ips.push(address);
        }
        if now.frontends == 0 {
            self.addresses.remove(&address);
            vacated.addresses.push(address);
        } else if was.frontends == 0 {
            self.remember_address(address);
        }
    }

    /// Sets the bit of an address in the filter.
    fn remember_address(&mut self, address: IpAddr) {
        let (word, mask) = filter_position(address);
        *self.filter.entry(word * 64 + mask.trailing_zeros()).or_default() += 1;
        let bits = self.tables.filter_word(word);
        if bits & mask == 0 {
            self.tables.write_filter_word(word, bits | mask);
        }
    }

    /// Clears the bit of an address that has no frontend any more, unless another one shares it.
    pub(super) fn forget_address(&mut self, address: IpAddr) {
        let (word, mask) = filter_position(address);
        let bit = word * 64 + mask.trailing_zeros();
        let Some(count) = self.filter.get_mut(&bit) else { return };
        *count -= 1;
        if *count == 0 {
            self.filter.remove(&bit);
            let bits = self.tables.filter_word(word);
            self.tables.write_filter_word(word, bits & !mask);
        }
    }

    /// Clears what an earlier agent left set.
    pub(super) fn correct_filter(&mut self) {
        let mut words = vec![0_u64; FILTER_WORDS as usize];
        for bit in self.filter.keys() {
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        for (index, bits) in (0..).zip(words) {
            if self.tables.filter_word(index) != bits {
                self.tables.write_filter_word(index, bits);
            }
        }
    }
}
