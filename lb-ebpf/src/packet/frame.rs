//! Packet access: the one place where packet bytes become references.

use core::{marker::PhantomData, mem::size_of};

use lb_common::{hop::InterfaceIndex, reason::Reason};

/// A header that can be laid over packet bytes.
///
/// # Safety
/// The type must have alignment 1, no padding, and be valid for every bit pattern.
pub unsafe trait Header {}

/// A packet, and the interface that received it.
pub trait Frame {
    /// Starts at the Ethernet header.
    fn cursor(&mut self) -> Cursor<'_>;
    /// Bytes of the whole frame.
    fn length(&self) -> u64;
    /// The index of the interface that received it.
    fn ingress(&self) -> InterfaceIndex;
    /// Removes bytes at the end. False: there are not as many.
    #[must_use]
    fn cut(&mut self, bytes: u32) -> bool;
    /// Adds bytes of unknown content in front of the Ethernet header. False: the driver has left no room there.
    #[must_use]
    fn grow(&mut self, bytes: u32) -> bool;
}

/// Takes headers off the front of a packet, one after another.
pub struct Cursor<'a> {
    next: *mut u8,
    end: *mut u8,
    packet: PhantomData<&'a mut [u8]>,
}

impl<'a> Cursor<'a> {
    /// # Safety
    /// `start..end` must be one live packet, not borrowed elsewhere during `'a`.
    #[inline(always)]
    pub unsafe fn new(start: *mut u8, end: *mut u8) -> Self {
        Self { next: start, end, packet: PhantomData }
    }

    /// The next header.
    #[inline(always)]
    pub fn take<H: Header>(&mut self) -> Result<&'a mut H, Reason> {
        let after = self.next.wrapping_add(size_of::<H>());
        if after > self.end {
            return Err(Reason::Truncated);
        }
        // SAFETY: in bounds (just checked), valid for any bytes (`Header`), and disjoint from
        // all headers taken before, because `next` only moves forward.
        let header = unsafe { &mut *self.next.cast::<H>() };
        self.next = after;
        Ok(header)
    }

    /// The number of remaining bytes.
    #[inline(always)]
    pub fn remaining(&self) -> usize {
        (self.end as usize).wrapping_sub(self.next as usize)
    }

    /// Skips bytes, at most 63: the options of an IPv4 or TCP header. The next `take` checks the bounds.
    #[inline(always)]
    pub fn skip(&mut self, bytes: usize) {
        self.next = self.next.wrapping_add(bytes & 0x3f);
    }
}
