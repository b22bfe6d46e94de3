//! What is kept with a socket: its translation, and the count of open sockets that a backend has.

use core::ptr::{self, null_mut};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
};
use proxy_common::{Family, Peers, Translation};

use crate::{
    atomic,
    count::count,
    ip::{Backend, Ip, V4, V6},
    maps::{COUNT_CONNECTIONS, SOCKET_PEERS, SOCKETS},
};

const CREATE: u64 = BPF_SK_STORAGE_GET_F_CREATE as u64;

/// The translation of the socket, if it ever had one; [`Family::None`] in it when it has none now.
#[inline(always)]
pub(crate) fn translation<'a>(socket: *mut bpf_sock) -> Option<&'a mut Translation> {
    // SAFETY: `socket` comes from the context. Storage lives as long as the socket, which outlives the
    // program; another thread of the client may write it too, which costs at worst one more choice.
    unsafe { storage(&SOCKETS, socket, 0).as_mut() }
}

/// The further translations of an unconnected socket, if it ever had any.
#[inline(always)]
pub(crate) fn peers<'a>(socket: *mut bpf_sock) -> Option<&'a mut Peers> {
    // SAFETY: as in `translation`.
    unsafe { storage(&SOCKET_PEERS, socket, 0).as_mut() }
}

/// As [`peers`], made where it is not there; `None` when the kernel has no memory for it.
#[inline(always)]
pub(crate) fn make_peers<'a>(socket: *mut bpf_sock) -> Option<&'a mut Peers> {
    // SAFETY: as in `translation`; new storage is zeroed, which is valid for the type.
    unsafe { storage(&SOCKET_PEERS, socket, CREATE).as_mut() }
}

/// Keeps what the socket was translated to. A socket without storage works, but shows its peer as the
/// endpoint.
#[inline(always)]
pub(crate) fn remember<I: Ip>(
    socket: *mut bpf_sock,
    frontend: ([u8; 16], u16),
    id: u32,
    backend: &Backend<I::Address>,
) {
    // SAFETY: as in `make_peers`.
    let kept = unsafe { storage(&SOCKETS, socket, CREATE).as_mut() };
    let Some(kept) = kept else {
        count(|counters| &mut counters.no_socket_storage);
        return;
    };
    uncount(kept);
    write::<I>(kept, frontend, id, backend);
    if COUNT_CONNECTIONS.load() != 0
        && let Some(load) = I::load(id)
    {
        // SAFETY: a live map value.
        unsafe { atomic::add(&raw mut (*load).active, 1) };
        kept.counted = 1;
    }
}

/// Fills in one translation, not counted.
#[inline(always)]
pub(crate) fn write<I: Ip>(
    translation: &mut Translation,
    (frontend_address, frontend_port): ([u8; 16], u16),
    id: u32,
    backend: &Backend<I::Address>,
) {
    translation.frontend_address = frontend_address;
    translation.backend_address = I::to_v6(backend.address);
    translation.frontend_port = frontend_port;
    translation.backend_port = backend.port;
    translation.backend = id;
    translation.generation = backend.generation;
    translation.family = I::FAMILY;
    // Still set where an agent that did not count came after one that did.
    translation.counted = 0;
}

/// The socket now goes to a destination that is no Service: what it was translated to no longer holds.
#[inline(always)]
pub(crate) fn forget(socket: *mut bpf_sock) {
    if let Some(kept) = translation(socket) {
        uncount(kept);
        kept.family = Family::None;
    }
}

/// The socket is closed; its storage goes with it.
#[inline(always)]
pub(crate) fn release(socket: *mut bpf_sock) -> i32 {
    if let Some(kept) = translation(socket) {
        uncount(kept);
    }
    1
}

/// Takes the socket out of its backend's count, unless the backend's id means another endpoint by now.
#[inline(always)]
fn uncount(kept: &mut Translation) {
    if COUNT_CONNECTIONS.load() == 0 || kept.counted == 0 {
        return;
    }
    kept.counted = 0;
    let load = if kept.family == Family::V6 {
        V6::load(kept.backend).filter(|_| generation::<V6>(kept.backend) == Some(kept.generation))
    } else {
        V4::load(kept.backend).filter(|_| generation::<V4>(kept.backend) == Some(kept.generation))
    };
    if let Some(load) = load {
        // SAFETY: a live map value; adding the largest number takes one away.
        unsafe { atomic::add(&raw mut (*load).active, u64::MAX) };
    }
}

#[inline(always)]
fn generation<I: Ip>(id: u32) -> Option<u32> {
    I::backend(id).map(|backend| backend.generation)
}

/// # Safety
///
/// `socket` comes from the program's context.
#[inline(always)]
unsafe fn storage<T>(map: &SkStorage<T>, socket: *mut bpf_sock, flags: u64) -> *mut T {
    // SAFETY: the helper knows the map by the address of its definition, and the value by the map.
    unsafe { bpf_sk_storage_get(ptr::from_ref(map).cast_mut().cast(), socket.cast(), null_mut(), flags) }
        .cast()
}
