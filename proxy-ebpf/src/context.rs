//! Reading and writing `struct bpf_sock_addr`. Its words are in network order; ours are host-order ports
//! and address bytes.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr, seq_file},
    cty::c_void,
    helpers::generated::{bpf_get_netns_cookie, bpf_seq_write},
    programs::SockAddrContext,
};
use proxy_common::{Protocol, Translation};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// The context of a cgroup socket-address program.
pub(crate) struct SockAddr {
    raw: *mut bpf_sock_addr,
}

// Volatile accesses keep the compiler from joining or shifting them: the verifier takes only the aligned
// word accesses that the kernel translates.
impl SockAddr {
    #[inline(always)]
    pub(crate) fn new(ctx: &SockAddrContext) -> Self {
        Self { raw: ctx.as_ptr().cast() }
    }

    /// The socket.
    #[inline(always)]
    pub(crate) fn socket(&self) -> *mut bpf_sock {
        // SAFETY: the kernel hands a valid context to the program, and the hook's `sk` is never null.
        unsafe { (*self.raw).__bindgen_anon_1.sk }
    }

    /// Whether the socket has a peer.
    #[inline(always)]
    pub(crate) fn is_connected(&self) -> bool {
        // SAFETY: the kernel translates reads of this field of a socket.
        unsafe { read_volatile(&raw const (*self.socket()).dst_port) != 0 }
    }

    /// The protocol of the socket, if Services can have it. An MPTCP socket connects through its first
    /// subflow, which is TCP.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        // SAFETY: as in `socket`.
        match unsafe { read_volatile(&raw const (*self.raw).protocol) } {
            IPPROTO_TCP => Some(Protocol::Tcp),
            IPPROTO_UDP => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// The kernel's cookie of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes the program's own context.
        unsafe { bpf_get_netns_cookie(self.raw.cast()) }
    }

    /// Address in network order, port in host order.
    #[inline(always)]
    pub(crate) fn destination4(&self) -> ([u8; 4], u16) {
        // SAFETY: as in `socket`.
        let address = unsafe { read_volatile(&raw const (*self.raw).user_ip4) };
        (address.to_ne_bytes(), self.port())
    }

    /// Address in network order, port in host order.
    #[inline(always)]
    pub(crate) fn destination6(&self) -> ([u8; 16], u16) {
        // SAFETY: as in `socket`; four words one by one, as the verifier wants them.
        let words = unsafe {
            [
                read_volatile(&raw const (*self.raw).user_ip6[0]),
                read_volatile(&raw const (*self.raw).user_ip6[1]),
                read_volatile(&raw const (*self.raw).user_ip6[2]),
                read_volatile(&raw const (*self.raw).user_ip6[3]),
            ]
        };
        (address_of(words), self.port())
    }

    /// Address in network order, port in host order.
    #[inline(always)]
    pub(crate) fn set_destination4(&self, address: [u8; 4], port: u16) {
        // SAFETY: as in `socket`; the hook may write these words.
        unsafe { write_volatile(&raw mut (*self.raw).user_ip4, u32::from_ne_bytes(address)) };
        self.set_port(port);
    }

    /// Address in network order, port in host order.
    #[inline(always)]
    pub(crate) fn set_destination6(&self, address: [u8; 16], port: u16) {
        let [a, b, c, d] = words_of(address);
        // SAFETY: as in `set_destination4`.
        unsafe {
            write_volatile(&raw mut (*self.raw).user_ip6[0], a);
            write_volatile(&raw mut (*self.raw).user_ip6[1], b);
            write_volatile(&raw mut (*self.raw).user_ip6[2], c);
            write_volatile(&raw mut (*self.raw).user_ip6[3], d);
        }
        self.set_port(port);
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: as in `socket`.
        let port = unsafe { read_volatile(&raw const (*self.raw).user_port) };
        u16::from_be((port & 0xffff) as u16)
    }

    #[inline(always)]
    fn set_port(&self, port: u16) {
        // SAFETY: as in `set_destination4`.
        unsafe { write_volatile(&raw mut (*self.raw).user_port, u32::from(port.to_be())) };
    }
}

#[inline(always)]
fn address_of(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes of plain data.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
fn words_of(address: [u8; 16]) -> [u32; 4] {
    // SAFETY: as in `address_of`.
    unsafe { core::mem::transmute(address) }
}

/// What an iterator over socket storage is given: `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub(crate) struct StoredSocket {
    meta: *const *mut seq_file,
    map: *const c_void,
    socket: *const c_void,
    value: *const Translation,
}

impl StoredSocket {
    /// The socket and its storage; `None` in the last call, which is about the end.
    ///
    /// # Safety
    ///
    /// `ctx` comes from the kernel.
    #[inline(always)]
    pub(crate) unsafe fn get(ctx: *const Self) -> Option<(*const c_void, Translation)> {
        // SAFETY: the context is readable in words; volatile keeps the compiler from joining them.
        let (socket, value) =
            unsafe { (read_volatile(&raw const (*ctx).socket), read_volatile(&raw const (*ctx).value)) };
        if socket.is_null() || value.is_null() {
            return None;
        }
        // SAFETY: storage of `SOCKETS` holds a translation; it stays while the program runs.
        Some((socket, unsafe { value.read() }))
    }

    /// Hands bytes to whoever reads from the iterator; false when there is no room now: the kernel then calls
    /// again for the same socket.
    ///
    /// # Safety
    ///
    /// `ctx` comes from the kernel.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "what is written is a few bytes")]
    pub(crate) unsafe fn write<T>(ctx: *const Self, what: &T) -> bool {
        // SAFETY: as in `get`; the first word of what `meta` points at is the file that is read.
        let file = unsafe { read_volatile(read_volatile(&raw const (*ctx).meta)) };
        // SAFETY: `what` is readable for its size.
        unsafe { bpf_seq_write(file, core::ptr::from_ref(what).cast(), size_of::<T>() as u32) == 0 }
    }
}
