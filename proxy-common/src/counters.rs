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
    /// Packet path: flows that were opened.
    pub flows_opened: u64,
    /// Packet path: flows whose client went on after an answer; these are never evicted.
    pub flows_confirmed: u64,
    /// Packet path: a flow could not be confirmed because the flow map is full; it goes on as a half-open one.
    pub flow_map_full: u64,
    /// Packet path: no source port was free towards an endpoint; the packet was dropped.
    pub source_ports_exhausted: u64,
    /// Packet path: dropped, because the client is outside the Service's source ranges.
    pub source_range_denied: u64,
    /// Packet path: answered with an ICMP error: port unreachable, too big, or time exceeded.
    pub icmp_sent: u64,
    /// Packet path: an ICMP error was owed but the limit of a CPU was reached; the packet was dropped.
    pub icmp_suppressed: u64,
    /// Packet path: ICMP errors that were translated.
    pub icmp_translated: u64,
    /// Packet path: a fragment of a datagram whose first fragment was not seen; passed as it was.
    pub fragment_unknown: u64,
    /// Packet path: a packet with headers that are cut short or contradict each other; passed as it was.
    pub malformed: u64,
    /// Packet path: dropped, because the node has no route to the endpoint or no address for its replies.
    pub unroutable: u64,
    /// Packet path: packets that were forwarded from XDP.
    pub xdp_forwarded: u64,
}

const _: () = assert!(size_of::<Counters>() == 20 * 8);
