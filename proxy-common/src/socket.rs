use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

use crate::Family;

/// How many frontends, besides the latest, an unconnected UDP socket may talk to at the same time.
pub const PEERS: usize = 8;

/// Value of `SOCKETS`: what the destination of a socket was translated to.
///
/// Both addresses are in IPv6 form (IPv4-mapped where they are IPv4), because an IPv6 socket may speak
/// to both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Translation {
    /// The Service address that the program asked for.
    pub frontend_address: [u8; 16],
    /// The endpoint that it got.
    pub backend_address: [u8; 16],
    /// Host order.
    pub frontend_port: u16,
    /// Host order.
    pub backend_port: u16,
    /// Backend id, in the table of `family`.
    pub backend: u32,
    /// Generation of the backend when it was chosen.
    pub generation: u32,
    /// Family of the backend; [`Family::None`] while there is no translation.
    pub family: Family,
    /// 1 while this translation is counted in `BACKEND_LOAD`.
    pub counted: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `SOCKET_PEERS`: the earlier translations of an unconnected UDP socket that talks to several
/// frontends at once, so that the replies of each show the right Service address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct Peers {
    /// Filled in a circle; [`Family::None`] in an entry that was never used.
    pub translations: [Translation; PEERS],
    /// Entry that is overwritten next.
    pub next: u32,
}

const _: () = assert!(size_of::<Translation>() == 48);
const _: () = assert!(size_of::<Peers>() == PEERS * 48 + 4);
