//! Counting what was decided, per CPU.

use proxy_common::Counters;

use crate::maps::COUNTERS;

/// Adds one to the counter that `which` picks.
#[inline(always)]
pub(crate) fn count(which: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU, and these programs do not nest on one CPU while they
        // hold the reference; a preempted increment can at worst lose one count.
        let counter = which(unsafe { &mut *counters });
        *counter = counter.wrapping_add(1);
    }
}
