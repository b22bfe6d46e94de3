use bytemuck::{Pod, Zeroable};

/// The one value of `COUNTERS`, kept per CPU: what the programs decided, counted since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counters {
    /// A socket was given an endpoint: by a connect(), or by the first datagram of an unconnected socket to
    /// a frontend.
    pub translated: u64,
    /// Refused: the Service has no endpoint.
    pub no_endpoint: u64,
    /// Failed as a drop: the traffic policy leaves no endpoint on this node.
    pub no_local_endpoint: u64,
    /// Refused: the cluster IP does not have this port.
    pub unknown_port: u64,
    /// Session affinity named the endpoint.
    pub affinity_hit: u64,
    /// An unconnected UDP socket left an endpoint that is gone.
    pub repicked: u64,
    /// The kernel gave no memory for a socket's state; the socket was translated all the same.
    pub no_socket_storage: u64,
    /// A frontend named a slot or backend outside the maps: the maps are damaged; the socket was refused.
    pub bad_slot: u64,
}

const _: () = assert!(size_of::<Counters>() == 8 * 8);
