use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    mem,
    net::IpAddr,
};

use jiff::Timestamp;
use proxy_common::Protocol;

use crate::state::ObjectName;

/// What only one service port can have: an address, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Address.
    pub(super) address: IpAddr,
    /// Port.
    pub(super) port: u16,
    /// Protocol.
    pub(super) protocol: Protocol,
}

/// Who claims a place; the least claim wins. kube-proxy leaves the winner to the order of a map
/// (KUBE-PROXY.md 1.3); here it is the older Service, whatever the order in which they were heard of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// As a node port: these are looked up after everything else (KUBE-PROXY.md 1.8).
    pub(super) as_node_port: bool,
    /// Age of the Service.
    pub(super) created: Timestamp,
    /// The Service.
    pub(super) service: ObjectName,
    /// Position of the port among the Service's.
    pub(super) index: usize,
}

/// All claims to all places.
#[derive(Debug, Default)]
pub(super) struct Claims {
    places: HashMap<Place, Claimants>,
}

#[derive(Debug)]
struct Claimants {
    winner: Claim,
    /// Almost always empty, and then without an allocation.
    others: BTreeSet<Claim>,
}

impl Claims {
    /// Adds a claim. Returns the claim that it took the place from.
    pub(super) fn add(&mut self, place: Place, claim: Claim) -> Option<&Claim> {
        match self.places.entry(place) {
            Entry::Vacant(entry) => {
                entry.insert(Claimants { winner: claim, others: BTreeSet::new() });
                None
            }
            Entry::Occupied(entry) => {
                let claimants = entry.into_mut();
                let wins = claim < claimants.winner;
                let loser = if wins { mem::replace(&mut claimants.winner, claim) } else { claim };
                claimants.others.insert(loser);
                // The least of the others is the winner of before, when there is a new one.
                if wins { claimants.others.first() } else { None }
            }
        }
    }

    /// Takes a claim back. Returns the claim that has the place instead.
    pub(super) fn remove(&mut self, place: Place, claim: &Claim) -> Option<&Claim> {
        let Entry::Occupied(mut entry) = self.places.entry(place) else { return None };
        let claimants = entry.get_mut();
        if claimants.winner != *claim {
            claimants.others.remove(claim);
            return None;
        }
        if let Some(next) = claimants.others.pop_first() {
            claimants.winner = next;
            Some(&entry.into_mut().winner)
        } else {
            entry.remove();
            None
        }
    }

    /// Who has the place.
    pub(super) fn winner(&self, place: Place) -> Option<&Claim> {
        self.places.get(&place).map(|claimants| &claimants.winner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place =
        Place { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port: 80, protocol: Protocol::Tcp };

    fn claim(as_node_port: bool, created: i64, name: &str, index: usize) -> Claim {
        let created = Timestamp::from_second(created).expect("a time");
        Claim { as_node_port, created, service: ObjectName::new("ns", name), index }
    }

    #[test]
    fn the_least_claim_has_the_place_in_any_order() {
        let by_rank = [
            claim(false, 1, "b", 0),
            claim(false, 1, "b", 1),
            claim(false, 1, "c", 0),
            claim(false, 2, "a", 0),
            claim(true, 0, "a", 0),
        ];
        for rotation in 0..by_rank.len() {
            let mut claims = Claims::default();
            let mut order: Vec<usize> = (0..by_rank.len()).collect();
            order.rotate_left(rotation);
            let mut best = usize::MAX;
            for index in order {
                let displaced = claims.add(PLACE, by_rank[index].clone()).cloned();
                let expected = (best < by_rank.len() && index < best).then(|| by_rank[best].clone());
                assert_eq!(displaced, expected);
                best = best.min(index);
                assert_eq!(claims.winner(PLACE), Some(&by_rank[best]));
            }
            for (index, claim) in by_rank.iter().enumerate() {
                assert_eq!(claims.winner(PLACE), Some(claim));
                assert_eq!(claims.remove(PLACE, claim), by_rank.get(index + 1));
            }
            assert_eq!(claims.winner(PLACE), None);
            assert!(claims.places.is_empty());
        }
    }

    #[test]
    fn a_loser_that_goes_changes_nothing() {
        let mut claims = Claims::default();
        let (first, second) = (claim(false, 1, "a", 0), claim(false, 2, "b", 0));
        claims.add(PLACE, first.clone());
        claims.add(PLACE, second.clone());
        assert_eq!(claims.remove(PLACE, &second), None);
        assert_eq!(claims.winner(PLACE), Some(&first));
        assert_eq!(claims.remove(PLACE, &first), None);
        assert!(claims.places.is_empty());
    }
}
