//! A packet as XDP hands it over.

use aya_ebpf::programs::XdpContext;

use crate::packet::frame::{Cursor, Frame};

/// The frame of one run.
pub struct XdpFrame<'a>(pub &'a XdpContext);

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn cursor(&mut self) -> Cursor<'_> {
        // SAFETY: the kernel gives one packet between `data` and `data_end` to this run alone.
        unsafe { Cursor::new(self.0.data() as *mut u8, self.0.data_end() as *mut u8) }
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        (self.0.data_end() - self.0.data()) as u64
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }
}
