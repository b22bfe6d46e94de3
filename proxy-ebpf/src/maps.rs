//! The maps. Capacities are defaults; the agent may set others when it loads the object.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage},
    macros::btf_map,
};
use proxy_common::{
    Affinity, AffinityKey4, AffinityKey6, Backend4, Backend6, BackendLoad, Counters, FILTER_WORDS, Frontend,
    FrontendKey4, FrontendKey6, Peers, ServicePort, Translation,
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
