use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::Programmer;
use crate::datapath::tables::{FrontendKey, Tables};

impl<T: Tables> Programmer<T> {
    /// Whether each of these endpoints is one of those that the frontend stands for now, also if it takes no new
    /// flows. A backend id that means nothing any more does not answer that: in new maps no old one does, and an
    /// endpoint that has come back has got another.
    pub(crate) fn serves(&self, asked: &[(FrontendKey, SocketAddr)]) -> Vec<bool> {
        let owners: Vec<Option<u32>> =
            asked.iter().map(|(key, _)| self.frontends.get(key).map(|entry| entry.service_port)).collect();
        let wanted: HashSet<u32> = owners.iter().copied().flatten().collect();
        let mut endpoints: HashMap<u32, HashSet<(IpAddr, u16)>> = HashMap::new();
        if !wanted.is_empty() {
            for (id, state) in &self.programmed {
                if wanted.contains(&state.service_port) {
                    let known = self.known_backends(id.family, Some(state));
                    endpoints.insert(state.service_port, known.into_keys().collect());
                }
            }
        }
        let serves = |(owner, (_, endpoint)): (Option<u32>, &(FrontendKey, SocketAddr))| {
            owner
                .and_then(|owner| endpoints.get(&owner))
                .is_some_and(|known| known.contains(&(endpoint.ip(), endpoint.port())))
        };
        owners.into_iter().zip(asked).map(serves).collect()
    }
}
