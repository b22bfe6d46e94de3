//! How the heap is kept small.
#![expect(unsafe_code, reason = "a setting of the C library's; everything above is safe")]

/// Large buffers come from the kernel and go back to it, from now on and for the whole process.
///
/// glibc does so at first, from 128 KiB on, but each time one is given back it raises that size to the
/// buffer's: the pages of the first list and the batches of the first step are then cut out of the heap, and
/// small objects that live on keep the holes. With 10,000 Services that was 6 MB of 58.
pub fn return_large_buffers() {
    #[cfg(target_env = "gnu")]
    {
        const FROM: libc::c_int = 128 << 10;
        // SAFETY: M_MMAP_THRESHOLD is a parameter of mallopt's and takes any number of bytes up to 32 MiB.
        // mallopt itself may be called at any time, and takes the lock of the heap.
        let _taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, FROM) };
    }
}
