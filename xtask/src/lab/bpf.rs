//! The few eBPF calls that the lab makes itself, to be independent of the agent.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;
use nix::net::if_::if_nametoindex;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::node::Node;
use super::place::Place;

// Commands, types and attach points of linux/bpf.h; the flag is of linux/if_link.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const TYPE_XDP: u32 = 6;
const TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const AT_CGROUP_INET4_CONNECT: u32 = 10;
const AT_XDP: u32 = 37;
const AT_TCX: [u32; 2] = [46, 47];
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const ANSWER_XDP_PASS: u32 = 2;

/// A program on one of the lab's links or cgroups. It goes when this is dropped.
#[derive(Debug)]
pub struct AttachedProgram {
    _link: OwnedFd,
}

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

#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    flags: [u32; 2],
    ids: u64,
    count: u32,
    reserved: u32,
    more: [u64; 4],
}

impl Place {
    /// Puts a program on a link that does nothing. A veth takes the frames that a program of its peer sends back
    /// (`XDP_TX`) only when it has one itself.
    pub fn let_xdp_pass(&self, link: &str) -> anyhow::Result<AttachedProgram> {
        let attached = self.run(|| XDP_PASS.attach(if_nametoindex(link)?));
        attached.with_context(|| format!("an XDP program on {link} in {}", self.name()))
    }

    /// How many programs a link has at tcx, on the way in and on the way out. None on kernels without tcx.
    pub fn tcx_programs(&self, link: &str) -> anyhow::Result<[u32; 2]> {
        let counted = self.run(|| {
            let [ingress, egress] = AT_TCX.map(|attach_type| count_programs(link, attach_type));
            Ok::<_, io::Error>([ingress?, egress?])
        });
        counted.with_context(|| format!("asking for the programs on {link} in {}", self.name()))
    }
}

impl Node {
    /// Puts a program on the cgroup that denies connect() to IPv4 addresses.
    pub fn deny_connect4(&self) -> anyhow::Result<AttachedProgram> {
        let cgroup = self.cgroup();
        let attached = File::open(cgroup).and_then(|cgroup| DENY.attach(cgroup.as_raw_fd().unsigned_abs()));
        attached.with_context(|| format!("a program that denies connect() on {}", cgroup.display()))
    }
}

/// A program of two instructions, which always answers the same, and where it goes.
struct Constant {
    kind: u32,
    attach_type: u32,
    flags: u32,
    answer: u32,
}

const XDP_PASS: Constant =
    Constant { kind: TYPE_XDP, attach_type: AT_XDP, flags: XDP_FLAGS_DRV_MODE, answer: ANSWER_XDP_PASS };
const DENY: Constant =
    Constant { kind: TYPE_CGROUP_SOCK_ADDR, attach_type: AT_CGROUP_INET4_CONNECT, flags: 0, answer: 0 };

impl Constant {
    /// Loads it and attaches it to a link, by its index, or to a cgroup, by its file descriptor.
    fn attach(&self, target: u32) -> io::Result<AttachedProgram> {
        // Before 5.11 programs count as memory that is locked, of which there is little by default. Who may not raise
        // the limit hears of it from the kernel below, if it matters.
        let _raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        // BPF_MOV64_IMM(r0, answer), BPF_EXIT: eight bytes each.
        let code: [u64; 2] = [0x0000_0000_0000_00b7 | u64::from(self.answer) << 32, 0x0000_0000_0000_0095];
        let mut load = ProgLoad {
            kind: self.kind,
            instructions: 2,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            attach_type: self.attach_type,
            ..ProgLoad::default()
        };
        let program = descriptor(bpf(PROG_LOAD, &mut load)?)?;
        let mut create = LinkCreate {
            program: program.as_raw_fd().unsigned_abs(),
            target,
            attach_type: self.attach_type,
            flags: self.flags,
        };
        Ok(AttachedProgram { _link: descriptor(bpf(LINK_CREATE, &mut create)?)? })
    }
}

fn count_programs(link: &str, attach_type: u32) -> io::Result<u32> {
    let mut query = ProgQuery { target: if_nametoindex(link)?, attach_type, ..ProgQuery::default() };
    match bpf(PROG_QUERY, &mut query) {
        Ok(_) => Ok(query.count),
        // Nothing was ever attached there; or the kernel does not know the attach point.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(0),
        Err(error) => Err(error),
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attribute types are `repr(C)` prefixes of the kernel's `union bpf_attr` without padding; the
    // pointers inside are to memory that outlives the call and that the kernel only reads. It writes no more than
    // the structure.
    let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(outcome).map_err(io::Error::other)
}

fn descriptor(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::other("no file descriptor"));
    }
    // SAFETY: a command that returns a file descriptor has just returned this one, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
