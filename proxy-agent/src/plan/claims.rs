use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    mem,
    net::IpAddr,
};

use jiff::Timestamp;
use proxy_common::{FrontendKind, Protocol};

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
/// (KUBE-PROXY.md 1.3); here it is the better right and then the older Service, whatever the order in which
/// they were heard of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// By what right.
    pub(super) right: Right,
    /// Age of the Service.
    pub(super) created: Timestamp,
    /// The Service.
    pub(super) service: ObjectName,
    /// Position of the port among the Service's.
    pub(super) index: usize,
}

/// By what right a Service claims a place, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// The API server gave it the address.
    ClusterIp,
    /// It says so itself: whoever may write a Service may put any address there (CVE-2020-8554), so this must
    /// not take a cluster IP away from its owner, however old.
    External,
    /// These are looked up after everything else (KUBE-PROXY.md 1.8).
    NodePort,
}

impl Right {
    /// The right that comes with a frontend of this kind.
    pub(super) fn of(kind: FrontendKind) -> Self {
        match kind {
            FrontendKind::ClusterIp => Self::ClusterIp,
            FrontendKind::ExternalIp | FrontendKind::LoadBalancer => Self::External,
            FrontendKind::NodePort => Self::NodePort,
        }
    }
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

    fn claim(right: Right, created: i64, name: &str, index: usize) -> Claim {
        let created = Timestamp::from_second(created).expect("a time");
        Claim { right, created, service: ObjectName::new("ns", name), index }
    }

    #[test]
    fn the_least_claim_has_the_place_in_any_order() {
        let by_rank = [
            claim(Right::ClusterIp, 3, "d", 0),
            claim(Right::External, 1, "b", 0),
            claim(Right::External, 1, "b", 1),
            claim(Right::External, 1, "c", 0),
            claim(Right::External, 2, "a", 0),
            claim(Right::NodePort, 0, "a", 0),
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
        let (first, second) = (claim(Right::External, 1, "a", 0), claim(Right::External, 2, "b", 0));
        claims.add(PLACE, first.clone());
        claims.add(PLACE, second.clone());
        assert_eq!(claims.remove(PLACE, &second), None);
        assert_eq!(claims.winner(PLACE), Some(&first));
        assert_eq!(claims.remove(PLACE, &first), None);
        assert!(claims.places.is_empty());
    }
}
