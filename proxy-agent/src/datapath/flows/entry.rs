use std::{fmt::Debug, net::SocketAddr};

use bytemuck::{CheckedBitPattern, NoUninit};
use proxy_common::{
    Direction, Flow4, Flow6, FlowKey4, FlowKey6, Hook, Protocol, Role, flow_filter_position4,
    flow_filter_position6,
};

/// Key of the flow maps of one family: a packet as it arrives.
pub(crate) trait Key: NoUninit + CheckedBitPattern + Eq + Debug {
    /// The maps' values.
    type Flow: NoUninit + CheckedBitPattern + Debug;

    /// The map of confirmed flows, and that of new ones.
    const MAPS: [&'static str; 2];

    fn source(&self) -> SocketAddr;
    fn destination(&self) -> SocketAddr;
    fn protocol(&self) -> Protocol;
    /// The byte of `FLOW_FILTER` that lets packets of this direction be looked up.
    fn filter_position(&self, direction: Direction) -> u32;
    /// The entry, as far as it matters here.
    fn entry(self, flow: &Self::Flow) -> Entry<Self>;
}

/// An entry of a flow map: one of the two directions of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<K> {
    pub(crate) key: K,
    /// Key of the other direction's entry: what the packets become, turned round.
    pub(crate) other: K,
    pub(crate) direction: Direction,
    pub(crate) side: Side,
    pub(crate) hook: Hook,
    pub(crate) peer_hook: Hook,
    pub(crate) service_port: u32,
}

/// What the packets of one direction have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Nanoseconds of the monotonic clock.
    pub(crate) last_seen: u64,
    /// Or-ed bits of [`proxy_common::seen`].
    pub(crate) seen: u8,
}

macro_rules! key {
    ($key:ty, $flow:ty, $maps:expr, $filter_position:path) => {
        impl Key for $key {
            type Flow = $flow;

            const MAPS: [&'static str; 2] = $maps;

            fn source(&self) -> SocketAddr {
                (self.source, self.source_port).into()
            }

            fn destination(&self) -> SocketAddr {
                (self.destination, self.destination_port).into()
            }

            fn protocol(&self) -> Protocol {
                self.protocol
            }

            fn filter_position(&self, direction: Direction) -> u32 {
                match direction {
                    Direction::Forward => $filter_position(bytemuck::cast(self.destination), Role::Frontend),
                    Direction::Reply => $filter_position(bytemuck::cast(self.source), Role::Endpoint),
                }
            }

            fn entry(self, flow: &$flow) -> Entry<Self> {
                let other = Self {
                    source: flow.destination,
                    destination: flow.source,
                    source_port: flow.destination_port,
                    destination_port: flow.source_port,
                    ..self
                };
                Entry {
                    key: self,
                    other,
                    direction: flow.direction,
                    side: Side { last_seen: flow.last_seen, seen: flow.seen },
                    hook: flow.hook,
                    peer_hook: flow.peer_hook,
                    service_port: flow.service_port,
                }
            }
        }
    };
}

key!(FlowKey4, Flow4, ["FLOWS4", "NEW_FLOWS4"], flow_filter_position4);
key!(FlowKey6, Flow6, ["FLOWS6", "NEW_FLOWS6"], flow_filter_position6);

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn the_two_entries_of_a_flow_name_each_other() {
        let key = |source: [u8; 4], source_port, destination: [u8; 4], destination_port| FlowKey4 {
            source,
            destination,
            source_port,
            destination_port,
            protocol: Protocol::Tcp,
            reserved: [0; 3],
        };
        let (client, frontend, endpoint, node) =
            ([192, 0, 2, 1], [192, 0, 2, 9], [10, 0, 0, 3], [10, 0, 0, 1]);
        let forward = key(client, 4000, frontend, 80).entry(&Flow4 {
            source: node,
            source_port: 1024,
            destination: endpoint,
            destination_port: 8080,
            ..Flow4::zeroed()
        });
        let reply = key(endpoint, 8080, node, 1024).entry(&Flow4 {
            source: frontend,
            source_port: 80,
            destination: client,
            destination_port: 4000,
            ..Flow4::zeroed()
        });
        assert_eq!((forward.other, reply.other), (reply.key, forward.key));
    }
}
