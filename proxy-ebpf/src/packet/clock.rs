use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use crate::maps::HAS_COARSE_CLOCK;

pub(super) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of the monotonic clock; where the kernel can, to a few milliseconds and in a fraction of the time.
#[inline(always)]
pub(super) fn now() -> u64 {
    // SAFETY: neither helper takes anything; the agent has found by probing that the first is there.
    unsafe { if HAS_COARSE_CLOCK.load() == 0 { bpf_ktime_get_ns() } else { bpf_ktime_get_coarse_ns() } }
}
