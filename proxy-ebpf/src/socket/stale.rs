//! Which sockets go on talking to an endpoint that is gone. A connected socket picks its endpoint once, and no program
//! of ours runs for its datagrams: the agent goes through the storage of all sockets when an endpoint has gone.

use core::ptr::read_volatile;

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_get_socket_cookie, bpf_probe_read_kernel},
};
use bytemuck::Zeroable;
use proxy_common::{Family, Protocol, SocketFields, StaleSocket, is_live};

use crate::{
    context::StoredSocket,
    ip::{Ip, V4, V6},
    maps::{HAS_SOCKET_COOKIE, SOCKET_FIELDS, STALE_TCP},
};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const AF_INET: u16 = 2;
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// One of the offsets. All of them at once would take too much of the stack.
macro_rules! field {
    ($name:ident) => {
        read_volatile(&raw const (*(&raw const SOCKET_FIELDS).cast::<SocketFields>()).$name)
    };
}

const DONE: i32 = 0;
/// The kernel is to call again for the same socket.
const AGAIN: i32 = 1;

/// For each socket that was ever translated: tells the agent of it when it is connected to the endpoint that it was
/// given, and that endpoint's backend id no longer means it.
#[inline(always)]
pub(crate) fn report_if_stale(ctx: *const StoredSocket) -> i32 {
    // SAFETY: the kernel's.
    let Some((socket, translation)) = (unsafe { StoredSocket::get(ctx) }) else { return DONE };
    let generation = match translation.family {
        Family::V4 => V4::backend(translation.backend).map(|backend| backend.generation),
        Family::V6 => V6::backend(translation.backend).map(|backend| backend.generation),
        Family::None => return DONE,
    };
    // A choice made while the backend was being taken back was kept with the generation of after.
    if generation == Some(translation.generation) && is_live(translation.generation) {
        return DONE;
    }
    let mut found = StaleSocket { translation, ..StaleSocket::zeroed() };
    // SAFETY: each place is a field of `found` and as long as what is read into it; all of them may hold any number.
    unsafe {
        read(socket, field!(remote_port), &raw mut found.remote_port);
        read(socket, field!(state), &raw mut found.state);
        // Not yet the kind of number that it is in the end.
        read(socket, field!(protocol), &raw mut found.family);
    }
    found.remote_port = u16::from_be(found.remote_port);
    if found.remote_port != translation.backend_port {
        return DONE;
    }
    found.protocol = match found.family {
        IPPROTO_UDP if found.state == ESTABLISHED => Protocol::Udp,
        IPPROTO_TCP if STALE_TCP.load() != 0 && found.state != CLOSE && found.state != LISTEN => {
            Protocol::Tcp
        }
        _ => return DONE,
    };
    // SAFETY: as above.
    unsafe {
        read(socket, field!(family), &raw mut found.family);
        if found.family == AF_INET {
            read(socket, field!(local_v4), (&raw mut found.local_address).cast::<[u8; 4]>());
            read(socket, field!(remote_v4), (&raw mut found.remote_address).cast::<[u8; 4]>());
        } else {
            read(socket, field!(local_v6), &raw mut found.local_address);
            read(socket, field!(remote_v6), &raw mut found.remote_address);
        }
        read(socket, field!(local_port), &raw mut found.local_port);
        read(socket, field!(interface), &raw mut found.interface);
        read(socket, field!(namespace), &raw mut found.cookie);
        let namespace = found.cookie as *const c_void;
        read(namespace, field!(namespace_inode), &raw mut found.namespace);
        if HAS_SOCKET_COOKIE.load() != 0 {
            found.cookie = bpf_get_socket_cookie(socket.cast_mut());
        } else {
            read(socket, field!(cookie), &raw mut found.cookie);
        }
    }
    // SAFETY: the kernel's.
    if unsafe { StoredSocket::write(ctx, &found) } { DONE } else { AGAIN }
}

/// Reads what stands `offset` bytes into a structure of the kernel; zeroes where nothing can be read.
///
/// # Safety
///
/// `to` is writable, and any bytes make a value of its type.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "what is read is a few bytes")]
unsafe fn read<T>(structure: *const c_void, offset: u32, to: *mut T) {
    let from = structure.wrapping_byte_add(offset as usize);
    // SAFETY: the caller's, and the helper checks what it reads.
    let _failed = unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from) };
}
