//! Array maps in this process's memory: one entry costs a store, not a system call.
#![expect(unsafe_code, reason = "memory shared with the kernel; everything above is safe")]

use std::{
    io,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use bytemuck::Pod;

/// A memory-mapped array map. The kernel rounds each entry up to 8 bytes.
#[derive(Debug)]
pub(crate) struct MappedArray {
    start: NonNull<u8>,
    bytes: usize,
    entries: u32,
    stride: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access is one aligned load or
// store; stores need `&mut`.
unsafe impl Send for MappedArray {}

impl MappedArray {
    /// Maps all of `map`, an array made with `BPF_F_MMAPABLE`.
    pub(crate) fn new(map: impl AsFd, entries: u32, value_size: usize, writable: bool) -> io::Result<Self> {
        let stride = value_size.next_multiple_of(8);
        let bytes = stride * entries as usize;
        let access = if writable {
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE
        } else {
            rustix::mm::ProtFlags::READ
        };
        // SAFETY: a new mapping at an address that the kernel picks; nothing else refers to it.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, access, rustix::mm::MapFlags::SHARED, map, 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { start, bytes, entries, stride, writable })
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// `T` at byte `offset` of an entry, or `None` outside the array.
    pub(crate) fn load<T: Pod>(&self, index: u32, offset: usize) -> Option<T> {
        let place = self.place::<T>(index, offset)?;
        // SAFETY: `place` is inside the mapping and aligned, and any bytes are a valid T. Volatile, because
        // another process may write there; a torn T is still a T.
        Some(unsafe { place.read_volatile() })
    }

    /// Stores `value` at byte `offset` of an entry, after everything stored before. Outside the array, or
    /// in one mapped for reading, it does nothing.
    pub(crate) fn store<T: Pod>(&mut self, index: u32, offset: usize, value: T) {
        let Some(place) = self.place::<T>(index, offset).filter(|_| self.writable) else { return };
        fence(Ordering::Release);
        // SAFETY: `place` is inside the writable mapping and aligned. Readers in the kernel see an aligned
        // store of up to 8 bytes whole.
        unsafe { place.write_volatile(value) };
    }

    fn place<T>(&self, index: u32, offset: usize) -> Option<*mut T> {
        let at = (index as usize) * self.stride + offset;
        let fits = index < self.entries
            && offset + size_of::<T>() <= self.stride
            && at.is_multiple_of(align_of::<T>());
        // SAFETY: an entry inside the array, and an offset inside the entry, are inside the mapping.
        fits.then(|| unsafe { self.start.add(at) }.as_ptr().cast())
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping with this length, and hands out no references into it.
        let _unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
