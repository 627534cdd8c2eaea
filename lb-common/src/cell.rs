//! Memory that CPUs and the controller share without a lock.
//!
//! [`Word`] and [`HalfWord`] are atomic words. [`Shared`] is a plain value that only its owner writes and any CPU may read.
//! A reader must check a [`Word`] before and after (with a [`fence`] between) to know that it read one owner's value.
//!
//! On the BPF target `core::sync::atomic` has no compare-exchange, and bpf-linker fails on its acquire loads; BPF's own
//! atomics are full barriers, and x86-64 reorders neither loads with loads nor stores with stores, so a compiler
//! barrier is sufficient here. A weakly ordered CPU would need load-acquire instructions.

#[cfg(feature = "standstill")]
pub mod standstill;

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::{cell::UnsafeCell, fmt};

use crate::layout::{Layout, Type};

/// A preemption point for tests, before each access.
#[inline(always)]
fn access() {
    #[cfg(feature = "standstill")]
    standstill::access();
}

/// Keeps the compiler from moving memory accesses across it.
#[inline(always)]
pub fn fence() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: no instruction; an asm block without options clobbers memory for the compiler, which is the point.
    unsafe {
        core::arch::asm!("")
    };
    #[cfg(not(target_arch = "bpf"))]
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// The operations of both word sizes.
macro_rules! words {
    ($($(#[$about:meta])* $name:ident $value:ty, $atomic:ty;)*) => {
        $(
            $(#[$about])*
            #[repr(transparent)]
            pub struct $name(UnsafeCell<$value>);

            // SAFETY: every access is a single volatile or atomic access of one aligned word.
            unsafe impl Sync for $name {}

            impl $name {
                /// A word with this initial value.
                pub const fn new(value: $value) -> Self {
                    Self(UnsafeCell::new(value))
                }
            }

            #[cfg(target_arch = "bpf")]
            impl $name {
                /// Reads the word.
                #[inline(always)]
                pub fn load(&self) -> $value {
                    // SAFETY: `self` is a live, aligned word; the read is one instruction.
                    unsafe { self.0.get().read_volatile() }
                }

                /// Writes the word.
                #[inline(always)]
                pub fn store(&self, value: $value) {
                    // SAFETY: `self` is a live, aligned word; the write is one instruction.
                    unsafe { self.0.get().write_volatile(value) }
                }
            }

            #[cfg(not(target_arch = "bpf"))]
            impl $name {
                fn atomic(&self) -> &$atomic {
                    access();
                    // SAFETY: same size and alignment, and every other access of ours is atomic as well.
                    unsafe { <$atomic>::from_ptr(self.0.get()) }
                }

                /// Reads the word.
                pub fn load(&self) -> $value {
                    self.atomic().load(Ordering::Acquire)
                }

                /// Writes the word.
                pub fn store(&self, value: $value) {
                    self.atomic().store(value, Ordering::Release);
                }

                /// Writes `new` if the word still is `old`. A full barrier.
                pub fn replace(&self, old: $value, new: $value) -> bool {
                    self.atomic().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, "{:#x}", self.load())
                }
            }
        )*
    };
}

words! {
    /// A 64-bit word with atomic operations.
    Word u64, AtomicU64;
    /// A 32-bit word with atomic operations.
    HalfWord u32, AtomicU32;
}

#[cfg(target_arch = "bpf")]
impl Word {
    /// Writes `new` if the word still is `old`. A full barrier.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        let mut found = old;
        // SAFETY: BPF_CMPXCHG on a live, aligned word; r0 holds the expected and then the found value.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({word} + 0, r0, {new})",
                word = in(reg) self.0.get(),
                new = in(reg) new,
                inout("r0") found,
            );
        }
        found == old
    }

    /// Adds, and returns what was there before. A full barrier.
    #[inline(always)]
    pub fn fetch_add(&self, value: u64) -> u64 {
        let mut before = value;
        // SAFETY: BPF_ADD | BPF_FETCH on a live, aligned word.
        unsafe {
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
                word = in(reg) self.0.get(),
                value = inout(reg) before,
            );
        }
        before
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Word {
    /// Adds, and returns what was there before. A full barrier.
    pub fn fetch_add(&self, value: u64) -> u64 {
        self.atomic().fetch_add(value, Ordering::SeqCst)
    }
}

#[cfg(target_arch = "bpf")]
impl HalfWord {
    /// Writes `new` if the word still is `old`. A full barrier.
    #[inline(always)]
    pub fn replace(&self, old: u32, new: u32) -> bool {
        let mut found = u64::from(old);
        // SAFETY: BPF_CMPXCHG on a live, aligned word; w0, the low half of r0, holds the expected and then the found value, w1
        // the new one.
        unsafe {
            core::arch::asm!(
                "w0 = cmpxchg32_32({word} + 0, w0, w1)",
                word = in(reg) self.0.get(),
                in("r1") u64::from(new),
                inout("r0") found,
            );
        }
        found as u32 == old
    }
}

/// A value that its owner writes while others may read.
#[repr(transparent)]
pub struct Shared<T: Copy>(UnsafeCell<T>);

// SAFETY: readers copy the value and use it only if the owner's `Word` shows that the copy is consistent.
unsafe impl<T: Copy + Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// A cell with this initial value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Copies the value.
    #[inline(always)]
    pub fn get(&self) -> T {
        access();
        // SAFETY: the cell is live and aligned. A racing write can tear the copy; it is used only after a second
        // look at the control word, and every bit pattern of `T` (words and arrays of words) is a `T`.
        unsafe { *self.0.get() }
    }

    /// Writes the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        access();
        // SAFETY: the cell is live and aligned, and only the owner writes.
        unsafe { *self.0.get() = value }
    }
}

impl<T: Copy + Layout> Layout for Shared<T> {
    const TYPE: Type = T::TYPE;
}

crate::plain! {
    Word = "u64",
    HalfWord = "u32",
}

impl<T: Copy + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
