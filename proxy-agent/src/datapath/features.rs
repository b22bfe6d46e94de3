use super::{hooks::Hook, sys};

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_CGROUP_SOCK: u32 = 9;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feature {
    /// What it is.
    pub(crate) name: &'static str,
    /// First kernel that has it.
    pub(crate) since: &'static str,
    /// What its lack costs.
    pub(crate) cost: &'static str,
    probe: fn() -> bool,
}

/// The helper that lets a program pick the error that connect() returns.
pub(crate) const SET_RETVAL: Feature = Feature {
    name: "bpf_set_retval for cgroup programs",
    since: "5.18",
    cost: "a refused connection is sent to a local address that refuses it",
    probe: || {
        // r1 = 0; call bpf_set_retval; r0 = 1; exit
        const CODE: [u64; 4] = [0x1b7, 187 << 32 | 0x85, 1 << 32 | 0xb7, 0x95];
        sys::takes_program(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, Hook::Connect4.attach_type(), &CODE)
    },
};

/// A clock that costs less than the exact one, good to a few milliseconds.
pub(crate) const COARSE_CLOCK: Feature = Feature {
    name: "bpf_ktime_get_coarse_ns",
    since: "5.11",
    cost: "each packet of a flow reads the exact clock, which takes longer",
    probe: || {
        // call bpf_ktime_get_coarse_ns; r0 = 0; exit
        const CODE: [u64; 3] = [160 << 32 | 0x85, 0xb7, 0x95];
        sys::takes_program(BPF_PROG_TYPE_SCHED_CLS, 0, &CODE)
    },
};

/// The barrier by which freed space is known to be unused.
pub(crate) const BARRIER: Feature = Feature {
    name: "membarrier(MEMBARRIER_CMD_GLOBAL)",
    since: "4.3, without nohz_full",
    cost: "when a map is full, space that was freed is used again two seconds later",
    probe: sys::has_grace_period,
};

impl Feature {
    /// Whether this kernel has it, found by trying it.
    pub(crate) fn is_there(&self) -> bool {
        (self.probe)()
    }
}

impl Hook {
    /// Whether the kernel takes programs for this hook, found by loading one that does nothing.
    pub(crate) fn is_there(self) -> bool {
        // r0 = 1; exit
        const CODE: [u64; 2] = [1 << 32 | 0xb7, 0x95];
        let program_type = match self {
            Self::SockRelease => BPF_PROG_TYPE_CGROUP_SOCK,
            _ => BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        };
        sys::takes_program(program_type, self.attach_type(), &CODE)
    }
}
