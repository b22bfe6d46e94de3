//! The maps. Capacities are defaults; the agent may set others when it loads the object.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage},
    macros::btf_map,
};
use proxy_common::{
    Affinity, AffinityKey4, AffinityKey6, Backend4, Backend6, BackendLoad, Counters, FILTER_WORDS,
    FLOW_FILTER_BYTES, Flow4, Flow6, FlowKey4, FlowKey6, FragmentKey4, FragmentKey6, FragmentPorts, Frontend,
    FrontendKey4, FrontendKey6, Link, Peers, ServicePort, SocketFields, SourceRange4, SourceRange6,
    Translation,
};

/// `BPF_F_NO_PREALLOC`: memory only for the entries there are.
const ON_DEMAND: usize = 1;
/// `BPF_F_MMAPABLE`: the agent writes through memory, without system calls.
const MAPPED: usize = 1 << 10;

/// 1 when the kernel has `bpf_set_retval` for these programs (5.18).
#[unsafe(no_mangle)]
pub(crate) static HAS_SET_RETVAL: Global<u32> = Global::new(0);

/// 1 when open sockets are counted per backend, which needs `sock_release` to be attached.
#[unsafe(no_mangle)]
pub(crate) static COUNT_CONNECTIONS: Global<u32> = Global::new(0);

#[btf_map]
pub(crate) static FRONTENDS4: HashMap<FrontendKey4, Frontend, 131_072, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FRONTENDS6: HashMap<FrontendKey6, Frontend, 131_072, ON_DEMAND> = HashMap::new();

/// Slot → backend id.
#[btf_map]
pub(crate) static SLOTS: Array<u32, 1_048_576, MAPPED> = Array::new();

#[btf_map]
pub(crate) static BACKENDS4: Array<Backend4, 524_288, MAPPED> = Array::new();
#[btf_map]
pub(crate) static BACKENDS6: Array<Backend6, 262_144, MAPPED> = Array::new();
#[btf_map]
pub(crate) static BACKEND_LOAD4: Array<BackendLoad, 524_288> = Array::new();
#[btf_map]
pub(crate) static BACKEND_LOAD6: Array<BackendLoad, 262_144> = Array::new();

#[btf_map]
pub(crate) static AFFINITY4: LruHashMap<AffinityKey4, Affinity, 65_536> = LruHashMap::new();
#[btf_map]
pub(crate) static AFFINITY6: LruHashMap<AffinityKey6, Affinity, 65_536> = LruHashMap::new();

/// The latest translation of a socket; the first of an unconnected one that talks to several frontends.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<Translation> = SkStorage::new();
/// Further translations of an unconnected socket.
#[btf_map]
pub(crate) static SOCKET_PEERS: SkStorage<Peers> = SkStorage::new();

/// A bit for the hash of each address that has a frontend, of both families.
#[btf_map]
pub(crate) static ADDRESS_FILTER: Array<u64, { FILTER_WORDS as usize }, MAPPED> = Array::new();

/// Names for people and for a restarted agent; no program reads it.
#[btf_map]
pub(crate) static SERVICES: HashMap<u32, ServicePort, 131_072, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// First port and number of ports for packets that are sent in a client's place.
#[unsafe(no_mangle)]
pub(crate) static SOURCE_PORT_FIRST: Global<u32> = Global::new(1024);
#[unsafe(no_mangle)]
pub(crate) static SOURCE_PORT_COUNT: Global<u32> = Global::new(28_976);

/// Cookie of the network namespace in which node ports answer on loopback addresses: the agent's own; 0 for none.
#[unsafe(no_mangle)]
pub(crate) static HOST_NETNS: Global<u64> = Global::new(0);

/// For `stale_sockets`: where the kernel keeps what identifies a socket.
#[unsafe(no_mangle)]
pub(crate) static SOCKET_FIELDS: Global<SocketFields> = Global::new(SocketFields {
    protocol: 0,
    family: 0,
    state: 0,
    local_port: 0,
    remote_port: 0,
    local_v4: 0,
    remote_v4: 0,
    local_v6: 0,
    remote_v6: 0,
    interface: 0,
    cookie: 0,
    namespace: 0,
    namespace_inode: 0,
});

/// 1 when TCP connections of endpoints that are gone are asked for too.
#[unsafe(no_mangle)]
pub(crate) static STALE_TCP: Global<u32> = Global::new(0);

/// 1 when the kernel has `bpf_get_socket_cookie` for iterators (5.12).
#[unsafe(no_mangle)]
pub(crate) static HAS_SOCKET_COOKIE: Global<u32> = Global::new(0);

/// 1 when the kernel has `bpf_ktime_get_coarse_ns` (5.11).
#[unsafe(no_mangle)]
pub(crate) static HAS_COARSE_CLOCK: Global<u32> = Global::new(0);

/// Network of the cluster's pods and its mask, in network order. As long as there is none, one that no address is in.
#[unsafe(no_mangle)]
pub(crate) static CLUSTER_CIDR4: Global<[[u32; 1]; 2]> = Global::new([[1], [0]]);
#[unsafe(no_mangle)]
pub(crate) static CLUSTER_CIDR6: Global<[[u32; 4]; 2]> = Global::new([[1, 0, 0, 0], [0; 4]]);

/// What marks a packet as rewritten, in the upper bits of its `tc_index`: another value on each node, for nodes that are
/// containers of one machine hand packets to one another whole.
#[unsafe(no_mangle)]
pub(crate) static REWRITTEN: Global<u32> = Global::new(1 << 7);

/// Flows whose client went on after an answer. Nothing is ever evicted.
#[btf_map]
pub(crate) static FLOWS4: HashMap<FlowKey4, Flow4, 524_288, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS6: HashMap<FlowKey6, Flow6, 524_288, ON_DEMAND> = HashMap::new();

/// All others: a flood of them pushes out only its like.
#[btf_map]
pub(crate) static NEW_FLOWS4: LruHashMap<FlowKey4, Flow4, 65_536> = LruHashMap::new();
#[btf_map]
pub(crate) static NEW_FLOWS6: LruHashMap<FlowKey6, Flow6, 65_536> = LruHashMap::new();

/// 1 at the hash of each address that some flow has come to or from.
#[btf_map]
pub(crate) static FLOW_FILTER: Array<u8, { FLOW_FILTER_BYTES as usize }> = Array::new();

#[btf_map]
pub(crate) static FRAGMENTS4: LruHashMap<FragmentKey4, FragmentPorts, 8_192> = LruHashMap::new();
#[btf_map]
pub(crate) static FRAGMENTS6: LruHashMap<FragmentKey6, FragmentPorts, 8_192> = LruHashMap::new();

/// Value 1 for each range.
#[btf_map]
pub(crate) static SOURCE_RANGES4: LpmTrie<SourceRange4, u8, 65_536> = LpmTrie::new();
#[btf_map]
pub(crate) static SOURCE_RANGES6: LpmTrie<SourceRange6, u8, 65_536> = LpmTrie::new();

/// Interface index → what the link leads to.
#[btf_map]
pub(crate) static LINKS: HashMap<u32, Link, 16_384, ON_DEMAND> = HashMap::new();
