//! Atomic addition, which `core` does not offer for BPF.

use core::arch::asm;

/// Adds `value` to the word at `target`, wrapping; other CPUs see it as one step.
///
/// # Safety
///
/// `target` points to an aligned word of a map value.
#[inline(always)]
pub(crate) unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller gives a valid pointer; the instruction is a 64-bit atomic add without fetch,
    // which every kernel with these hooks has.
    unsafe {
        asm!("lock *(u64 *)({target} + 0) += {value}", target = in(reg) target, value = in(reg) value, options(nostack));
    }
}
