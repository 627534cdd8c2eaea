//! A map of one value that the program reaches without a lookup.

use core::{cell::UnsafeCell, mem::MaybeUninit};

/// A map of one value. It is zero until the controller writes it.
///
/// The value's address is part of the instruction (`BPF_PSEUDO_MAP_VALUE`). An element of an array costs a dozen
/// instructions more: its index is stored, loaded, compared and multiplied.
///
/// The loader makes a map of the section that holds the value. The name of the section must be `.bss.` and the name of
/// the map, and the section must hold nothing else.
#[repr(transparent)]
pub struct Direct<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: the value is shared memory, like that of any map.
unsafe impl<T> Sync for Direct<T> {}

impl<T> Direct<T> {
    /// The map.
    #[expect(clippy::new_without_default, reason = "only for statics")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// The address of the value.
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointer is only copied between registers")]
    #[inline(always)]
    pub fn as_mut_ptr(&'static self) -> *mut T {
        let value;
        // SAFETY: one move between registers. It hides the address from the compiler, which sees no code that writes the
        // value, and would replace every read by zero.
        unsafe {
            core::arch::asm!("{value} = {own}", value = lateout(reg) value, own = in(reg) self.0.get(), options(nomem, nostack, pure));
        }
        value
    }

    /// The value.
    #[inline(always)]
    pub fn get(&'static self) -> &'static T {
        // SAFETY: the map's only value, which exists as long as the program is loaded. Any bytes are a valid value.
        unsafe { &*self.as_mut_ptr() }
    }
}
