//! A BPF array mapped into this process.
//!
//! The program and the controller read and write the same bytes without a system call.

use std::{io, num::NonZeroUsize, ops::Deref, os::fd::AsFd, ptr::NonNull};

use lb_common::{
    cell::Word,
    flow::{Bucket, Record4, Record6, ReplyLine},
    pool::{Members, SlotLine},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A value that can be read while the program writes it.
///
/// # Safety
///
/// Any bytes are a valid value, what changes lies within a cell of `lb_common::cell`, and the size is a multiple of
/// 8, as the kernel lays out array elements.
pub unsafe trait Mapped: Sync {}

// SAFETY: one word.
unsafe impl Mapped for Word {}
// SAFETY: words.
unsafe impl<const N: usize> Mapped for [Word; N] {}
// SAFETY: words, in one cache line.
unsafe impl Mapped for ReplyLine {}
// SAFETY: half words, in one cache line.
unsafe impl Mapped for SlotLine {}
// SAFETY: half words, in four cache lines.
unsafe impl Mapped for Members {}
// SAFETY: cells, and unused words that are never written; a multiple of a cache line.
unsafe impl Mapped for Bucket<Record4> {}
// SAFETY: as above.
unsafe impl Mapped for Bucket<Record6> {}

/// The elements of an array map with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub struct Mapping<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: the memory is shared with the kernel anyway, and `Mapped` promises that `T` allows that.
unsafe impl<T: Mapped> Send for Mapping<T> {}
// SAFETY: as above: a shared reference gives access to cells only.
unsafe impl<T: Mapped> Sync for Mapping<T> {}

impl<T: Mapped> Mapping<T> {
    /// Maps all elements. `length` is the number that the kernel reports for the map.
    pub fn new(map: impl AsFd, length: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 4096) };
        let length = length as usize;
        let bytes = NonZeroUsize::new(length * size_of::<T>())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an empty map cannot be mapped"))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses does not touch our memory.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start: start.cast(), length })
    }

    /// Maps a file instead of a BPF array.
    #[cfg(test)]
    pub fn of_zeros(length: u32) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(length) * size_of::<T>() as u64).unwrap();
        Self::new(&file, length).unwrap()
    }
}

impl<T> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped until drop, page-aligned, and no longer than the array. Concurrent writes go to
        // cells (`Mapped`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.length * size_of::<T>()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
