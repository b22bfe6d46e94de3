//! The BPF system calls that aya has no safe form of. With [`super::mapped`] and [`super::memory`] the only
//! unsafe code here.
#![expect(unsafe_code, reason = "raw system calls; everything above is safe")]

mod iterator;

use std::{
    ffi::CString,
    fmt, io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use bytemuck::{NoUninit, Pod, Zeroable, bytes_of};

pub(crate) use iterator::{TracingProgram, freeze_map, iterate, iterator_over_map, load_iterator};

const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_DETACH: u32 = 34;

/// What the kernel says about a map.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MapShape {
    /// `BPF_MAP_TYPE_*`.
    pub(crate) map_type: u32,
    id: u32,
    /// Bytes.
    pub(crate) key_size: u32,
    /// Bytes.
    pub(crate) value_size: u32,
    /// Capacity.
    pub(crate) max_entries: u32,
    /// `BPF_F_*` of its creation.
    pub(crate) flags: u32,
}

impl MapShape {
    /// The shape that a map is to be made with.
    pub(crate) fn new(map_type: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> Self {
        Self { map_type, id: 0, key_size, value_size, max_entries, flags }
    }

    /// All that makes two maps interchangeable.
    pub(crate) fn parts(&self) -> [u32; 5] {
        [self.map_type, self.key_size, self.value_size, self.max_entries, self.flags]
    }
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [map_type, key_size, value_size, max_entries, flags] = self.parts();
        write!(
            f,
            "type {map_type}, key {key_size} B, value {value_size} B, {max_entries} entries, flags {flags:#x}"
        )
    }
}

/// What the kernel says about a link between a program and where it is attached.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct LinkShape {
    /// `BPF_LINK_TYPE_*`.
    pub(crate) link_type: u32,
    /// Number of the link, which lasts as long as it does.
    pub(crate) id: u32,
    /// Number of the program behind the link.
    pub(crate) program: u32,
    reserved: u32,
    /// By the type of the link.
    place: [u32; 4],
}

impl LinkShape {
    /// Of a link to a cgroup: the inode number of its directory, 0 when it is gone, and `BPF_CGROUP_*`.
    pub(crate) fn cgroup(&self) -> (u64, u32) {
        let [low, high, attach_type, _] = self.place;
        // The kernel wrote the number in this machine's order of bytes.
        let halves = if cfg!(target_endian = "little") { [low, high] } else { [high, low] };
        (u64::from(halves[1]) << 32 | u64::from(halves[0]), attach_type)
    }

    /// Of a link to a network interface: its index, 0 when it is gone, and `BPF_TCX_*` (0 for XDP).
    pub(crate) fn interface(&self) -> (u32, u32) {
        (self.place[0], self.place[1])
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

/// `BPF_LINK_CREATE` (program, cgroup or interface, attach type, flags) and `BPF_LINK_UPDATE` (link, program, flags,
/// old program).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Link([u32; 4]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Program {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

fn bpf<A: Pod>(command: u32, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: `attributes` is plain old data of the given size, and the callers below put only addresses
    // into it that are valid for the whole call, with as many bytes as the command reads or writes there.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or(i32::MAX)) }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).cast::<u8>() as u64
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for this call, nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf(OBJ_GET, &mut Object { path: path.as_ptr() as u64, fd: 0, flags: 0 }).map(owned)
}

/// Pins `fd` at `path`, which must be free and on a bpffs.
pub(crate) fn pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &mut Object { path: path.as_ptr() as u64, fd: raw(&fd), flags: 0 }).map(drop)
}

fn info<T: Pod>(fd: impl AsFd) -> io::Result<T> {
    let mut info = T::zeroed();
    let len = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    bpf(OBJ_GET_INFO_BY_FD, &mut Info { fd: raw(&fd), len, info: address_mut(&mut info) })?;
    Ok(info)
}

/// Type, sizes, capacity and flags of a map.
pub(crate) fn map_shape(map: impl AsFd) -> io::Result<MapShape> {
    info(map)
}

/// Where a link is attached.
pub(crate) fn link_shape(link: impl AsFd) -> io::Result<LinkShape> {
    info(link)
}

/// Attaches `program` to a cgroup; the link lives as long as its descriptor or a pin of it.
pub(crate) fn link_create(program: impl AsFd, cgroup: impl AsFd, attach_type: u32) -> io::Result<OwnedFd> {
    bpf(LINK_CREATE, &mut Link([raw(&program), raw(&cgroup), attach_type, 0])).map(owned)
}

/// Attaches `program` to a network interface of the thread's namespace. `flags` are of the attach type.
pub(crate) fn link_create_on_interface(
    program: impl AsFd,
    interface: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    bpf(LINK_CREATE, &mut Link([raw(&program), interface, attach_type, flags])).map(owned)
}

/// Puts `program` behind a link, in one atomic step. The kernel checks only the type of the program, not
/// its attach type: the caller does.
pub(crate) fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    bpf(LINK_UPDATE, &mut Link([raw(&link), raw(&program), 0, 0])).map(drop)
}

/// Takes a link off its place, whoever still holds it (kernel 5.9).
pub(crate) fn link_detach(link: impl AsFd) -> io::Result<()> {
    bpf(LINK_DETACH, &mut raw(&link)).map(drop)
}

/// Whether the kernel takes a program, found by loading it. `code` is raw instructions. Only `EINVAL` says
/// that it does not: what is short of memory or of rights is no older for it, and says so at the next load.
pub(crate) fn takes_program(program_type: u32, expected_attach_type: u32, code: &[u64]) -> bool {
    let loaded = bpf(
        PROG_LOAD,
        &mut Program {
            program_type,
            instruction_count: u32::try_from(code.len()).unwrap_or(u32::MAX),
            instructions: address(code),
            license: c"GPL".as_ptr() as u64,
            expected_attach_type,
            ..Program::zeroed()
        },
    )
    .map(owned);
    loaded.err().is_none_or(|error| error.raw_os_error() != Some(libc::EINVAL))
}

/// Copies the value of `key` into `value`, which must be as long as the map's values are (times the
/// possible CPUs, each rounded up to 8 bytes, for a per-CPU map). False when there is none.
pub(crate) fn lookup(map: impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut element =
        Element { map: raw(&map), reserved: 0, key: address(key), value: address_mut(value), flags: 0 };
    match bpf(MAP_LOOKUP_ELEM, &mut element) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|_| true),
    }
}

/// Writes one entry. Slices must have the map's key and value sizes.
pub(crate) fn update(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut element =
        Element { map: raw(&map), reserved: 0, key: address(key), value: address(value), flags: 0 };
    bpf(MAP_UPDATE_ELEM, &mut element).map(drop)
}

/// Writes one entry unless there is one already; whether it did. Slices must have the map's key and value
/// sizes.
pub(crate) fn insert(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<bool> {
    const BPF_NOEXIST: u64 = 1;
    let mut element =
        Element { map: raw(&map), reserved: 0, key: address(key), value: address(value), flags: BPF_NOEXIST };
    match bpf(MAP_UPDATE_ELEM, &mut element) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        result => result.map(|_| true),
    }
}

/// Deletes one entry; one that is not there counts as deleted.
pub(crate) fn delete(map: impl AsFd, key: &[u8]) -> io::Result<()> {
    let mut element = Element { map: raw(&map), reserved: 0, key: address(key), value: 0, flags: 0 };
    match bpf(MAP_DELETE_ELEM, &mut element) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map(drop),
    }
}

/// Replaces `key` by the key after it (the first one for `None`); false at the end.
pub(crate) fn next_key(map: impl AsFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut element = Element {
        map: raw(&map),
        reserved: 0,
        key: key.map_or(0, address),
        value: address_mut(next),
        flags: 0,
    };
    match bpf(MAP_GET_NEXT_KEY, &mut element) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|_| true),
    }
}

/// How far a batch came, and why it went no further.
pub(crate) struct BatchEnd {
    /// Entries that were done.
    pub(crate) done: usize,
    /// What stopped it.
    pub(crate) error: Option<io::Error>,
}

fn batch(command: u32, batch: &mut Batch) -> BatchEnd {
    let asked = batch.count;
    let error = bpf(command, batch).err();
    // The kernel counts what it did, but leaves the field alone when it refuses the call as a whole.
    let untouched = error.is_some() && batch.count == asked;
    BatchEnd { done: if untouched { 0 } else { batch.count as usize }, error }
}

/// Writes entries in order until one fails. `keys` and `values` are of the same length.
pub(crate) fn update_batch<K: NoUninit, V: NoUninit>(map: impl AsFd, keys: &[K], values: &[V]) -> BatchEnd {
    assert_eq!(keys.len(), values.len());
    let mut attributes = Batch {
        keys: address(keys),
        values: address(values),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: raw(&map),
        ..Batch::zeroed()
    };
    batch(MAP_UPDATE_BATCH, &mut attributes)
}

/// Deletes entries in order until one fails; also one that is not there fails.
pub(crate) fn delete_batch<K: NoUninit>(map: impl AsFd, keys: &[K]) -> BatchEnd {
    let mut attributes = Batch {
        keys: address(keys),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: raw(&map),
        ..Batch::zeroed()
    };
    batch(MAP_DELETE_BATCH, &mut attributes)
}

/// Reads up to `count` entries after `position` into `keys` and `values`, which have room for as many, and
/// moves `position` on. `ENOENT` in the answer is the end of the map.
pub(crate) fn lookup_batch(
    map: impl AsFd,
    position: &mut Option<[u8; 64]>,
    count: u32,
    keys: &mut [u8],
    values: &mut [u8],
) -> BatchEnd {
    let mut next = [0_u8; 64];
    let mut attributes = Batch {
        in_batch: position.as_ref().map_or(0, address),
        out_batch: address_mut(&mut next),
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map: raw(&map),
        ..Batch::zeroed()
    };
    let error = bpf(MAP_LOOKUP_BATCH, &mut attributes).err();
    let refused = error.as_ref().is_some_and(|error| error.raw_os_error() != Some(libc::ENOENT));
    if !refused {
        *position = Some(next);
    }
    BatchEnd { done: if refused { 0 } else { attributes.count as usize }, error }
}

/// Waits until every program run that is going on now has ended (an RCU grace period).
///
/// # Errors
/// `EINVAL` on a kernel with `nohz_full` CPUs.
pub(crate) fn grace_period() -> io::Result<()> {
    // SAFETY: MEMBARRIER_CMD_GLOBAL takes no addresses.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether [`grace_period`] works on this kernel.
pub(crate) fn has_grace_period() -> bool {
    // SAFETY: MEMBARRIER_CMD_QUERY takes no addresses; it answers with the commands there are.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
    commands >= 0 && commands & libc::c_long::from(libc::MEMBARRIER_CMD_GLOBAL) != 0
}

/// Lets this process lock as much memory as it likes: before 5.11 maps and programs count as locked.
pub(crate) fn lift_memlock_limit() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    // Without CAP_SYS_RESOURCE on a new kernel this fails and does not matter; on an old one creating the
    // maps fails next, with an error of its own.
    let _unchanged = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
}

/// A number from the kernel's random source.
pub(crate) fn random_u32() -> u32 {
    let mut value = 0_u32;
    // SAFETY: `value` is four writable bytes.
    let got = unsafe { libc::getrandom((&raw mut value).cast(), size_of::<u32>(), 0) };
    if got == 4 { value } else { std::process::id() }
}

/// What the kernel calls the thread's network namespace by (5.14; `ENOPROTOOPT` before).
pub(crate) fn network_namespace_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: `cookie` is eight writable bytes, and `length` says so; the socket is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// The bytes of a key or value.
pub(crate) fn bytes<T: NoUninit>(of: &T) -> &[u8] {
    bytes_of(of)
}
