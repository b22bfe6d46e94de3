//! The smallest program there is: `r0 = 0; exit`, which denies connect() to IPv4 addresses.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches it to a cgroup for as long as the link is held.
pub(crate) fn connect4(cgroup: &Path) -> io::Result<OwnedFd> {
    // BPF_MOV64_IMM(r0, 0), BPF_EXIT: eight bytes each.
    let code: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    let load = ProgLoad {
        kind: CGROUP_SOCK_ADDR,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: CGROUP_INET4_CONNECT,
        ..ProgLoad::default()
    };
    let program = bpf(PROG_LOAD, &load)?;
    let cgroup = File::open(cgroup)?;
    let fd = |fd: &dyn AsRawFd| fd.as_raw_fd().unsigned_abs();
    let link = LinkCreate {
        program: fd(&program),
        target: fd(&cgroup),
        attach_type: CGROUP_INET4_CONNECT,
        flags: 0,
    };
    bpf(LINK_CREATE, &link)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: both attribute types are `repr(C)` prefixes of the kernel's `union bpf_attr` without
    // padding; the pointers inside are to memory that outlives the call, and the kernel only reads.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
