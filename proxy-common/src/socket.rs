use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

use crate::{Family, Protocol};

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

/// Where the fields that identify a socket stand in the kernel's structures, in bytes: they differ between
/// kernels, whose own description (BTF) says where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct SocketFields {
    /// `sock.sk_protocol`, two bytes.
    pub protocol: u32,
    /// `sock.__sk_common.skc_family`, two bytes.
    pub family: u32,
    /// `skc_state`, one byte.
    pub state: u32,
    /// `skc_num`: the local port, two bytes in host order.
    pub local_port: u32,
    /// `skc_dport`: the port of the peer, two bytes in network order.
    pub remote_port: u32,
    /// `skc_rcv_saddr`, four bytes.
    pub local_v4: u32,
    /// `skc_daddr`, four bytes.
    pub remote_v4: u32,
    /// `skc_v6_rcv_saddr`, sixteen bytes.
    pub local_v6: u32,
    /// `skc_v6_daddr`, sixteen bytes.
    pub remote_v6: u32,
    /// `skc_bound_dev_if`, four bytes.
    pub interface: u32,
    /// `skc_cookie`, eight bytes.
    pub cookie: u32,
    /// `skc_net`: a pointer to the network namespace.
    pub namespace: u32,
    /// `net.ns.inum` in the network namespace, four bytes.
    pub namespace_inode: u32,
}

/// A socket whose endpoint is gone, as the program `stale_sockets` tells the agent of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct StaleSocket {
    /// What the kernel tells sockets apart by; 0 when it has not been asked for it yet (before 5.12).
    pub cookie: u64,
    /// What it was translated to.
    pub translation: Translation,
    /// Own address; an IPv4 one is in the first four bytes, unless the socket is an IPv6 one.
    pub local_address: [u8; 16],
    /// Address of the peer, likewise.
    pub remote_address: [u8; 16],
    /// Inode number of the network namespace.
    pub namespace: u32,
    /// Index of the link that it is bound to in its namespace; 0 for none.
    pub interface: u32,
    /// Host order.
    pub local_port: u16,
    /// Host order.
    pub remote_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// [`Protocol::Tcp`] or [`Protocol::Udp`].
    pub protocol: Protocol,
    /// `TCP_*` of the kernel's `tcp_states.h`; 1 for a connected UDP socket.
    pub state: u8,
}

const _: () = assert!(size_of::<Translation>() == 48);
const _: () = assert!(size_of::<StaleSocket>() == 104);
const _: () = assert!(size_of::<Peers>() == PEERS * 48 + 4);
