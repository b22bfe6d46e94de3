//! Array maps in this process's memory: one entry costs a store, not a system call.
#![expect(unsafe_code, reason = "memory shared with the kernel; everything above is safe")]

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{Ordering, fence},
};

use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes that are mapped at a time: a multiple of every page size and of every entry's stride.
///
/// The kernel counts all of a mapping as this process's memory, so only what is in use is mapped.
const CHUNK: usize = 1 << 20;

/// A memory-mapped array map. The kernel rounds each entry up to 8 bytes.
#[derive(Debug)]
pub(crate) struct MappedArray {
    map: OwnedFd,
    chunks: Box<[OnceCell<Chunk>]>,
    entries: u32,
    stride: usize,
    writable: bool,
}

impl MappedArray {
    /// Takes over `map`, an array made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// The kernel does not let the array be mapped.
    pub(crate) fn new(map: OwnedFd, entries: u32, value_size: usize, writable: bool) -> io::Result<Self> {
        let stride = value_size.next_multiple_of(8);
        assert!(CHUNK.is_multiple_of(stride), "an entry of {stride} bytes would end in the next chunk");
        let chunks = (stride * entries as usize).div_ceil(CHUNK);
        let chunks = (0..chunks).map(|_| OnceCell::new()).collect();
        let array = Self { map, chunks, entries, stride, writable };
        array.chunk(0)?;
        Ok(array)
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

    /// Gives back the memory of what is all zero; it is mapped again when it is needed.
    pub(crate) fn trim(&mut self) {
        for chunk in &mut self.chunks {
            if chunk.get().is_some_and(Chunk::is_zero) {
                chunk.take();
            }
        }
    }

    fn place<T>(&self, index: u32, offset: usize) -> Option<*mut T> {
        let at = (index as usize) * self.stride + offset;
        let fits = index < self.entries
            && offset + size_of::<T>() <= self.stride
            && at.is_multiple_of(align_of::<T>());
        if !fits {
            return None;
        }
        // Going on without it would program half an endpoint set; a new agent starts from what there is.
        let chunk = self
            .chunk(at / CHUNK)
            .unwrap_or_else(|error| panic!("no memory left to map an eBPF array: {error}"));
        // SAFETY: an entry inside the array, and an offset inside the entry, are inside their chunk: chunks
        // hold a whole number of entries.
        Some(unsafe { chunk.start.add(at % CHUNK) }.as_ptr().cast())
    }

    fn chunk(&self, number: usize) -> io::Result<&Chunk> {
        let cell = self.chunks.get(number).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(chunk) = cell.get() {
            return Ok(chunk);
        }
        let from = number * CHUNK;
        let bytes = CHUNK.min(self.stride * self.entries as usize - from);
        let chunk = Chunk::new(&self.map, from as u64, bytes, self.writable)?;
        Ok(cell.get_or_init(|| chunk))
    }
}

#[derive(Debug)]
struct Chunk {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access is one aligned load or store.
unsafe impl Send for Chunk {}

impl Chunk {
    fn new(map: impl AsFd, from: u64, bytes: usize, writable: bool) -> io::Result<Self> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address that the kernel picks; nothing else refers to it.
        let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, map, from) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    fn is_zero(&self) -> bool {
        let words: *const u64 = self.start.as_ptr().cast_const().cast();
        // SAFETY: strides are multiples of 8, so these words are inside the mapping, which is page-aligned.
        (0..self.bytes / 8).all(|word| unsafe { words.add(word).read_volatile() } == 0)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping with this length, and hands out no references into it.
        let _unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
