use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};

/// What identifies a client for session affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum ClientKind {
    /// Not set.
    None = 0,
    /// The kernel's cookie of the client's network namespace: a pod, or the host as a whole.
    NetworkNamespace = 1,
    /// The client's address, in network order and followed by zeroes: a client that is known by its packets.
    Address = 2,
}

/// Key of `AFFINITY4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct AffinityKey4 {
    /// Network namespace cookie in native order, or an address.
    pub client: [u8; 8],
    /// Service port id.
    pub service_port: u32,
    /// What `client` holds.
    pub client_kind: ClientKind,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Key of `AFFINITY6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct AffinityKey6 {
    /// Network namespace cookie in native order and then zeroes, or an address.
    pub client: [u8; 16],
    /// Service port id.
    pub service_port: u32,
    /// What `client` holds.
    pub client_kind: ClientKind,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `AFFINITY4` and `AFFINITY6`: where a client was sent last.
///
/// It counts while the backend still has this generation, is in the list that the client would be sent
/// to, and `last_used` is younger than the frontend's timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Affinity {
    /// Nanoseconds of the kernel's monotonic clock at the last new connection.
    pub last_used: u64,
    /// Backend id.
    pub backend: u32,
    /// Generation of the backend when it was chosen.
    pub generation: u32,
}

const _: () = assert!(size_of::<AffinityKey4>() == 16);
const _: () = assert!(size_of::<AffinityKey6>() == 24);
const _: () = assert!(size_of::<Affinity>() == 16);
