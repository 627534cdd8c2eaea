//! A packet as XDP provides it.

use aya_ebpf::{helpers, programs::XdpContext};
use lb_common::hop::InterfaceIndex;

use crate::packet::frame::{Cursor, Frame};

/// The frame of one run.
pub struct XdpFrame<'a> {
    context: &'a XdpContext,
    ingress: InterfaceIndex,
}

impl<'a> XdpFrame<'a> {
    /// Reads the ingress interface once: it is three loads away from the context.
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Self {
        Self { context, ingress: InterfaceIndex(context.ingress_ifindex() as u32) }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn cursor(&mut self) -> Cursor<'_> {
        // SAFETY: the kernel gives one packet between `data` and `data_end` to this run alone.
        unsafe { Cursor::new(self.context.data() as *mut u8, self.context.data_end() as *mut u8) }
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        (self.context.data_end() - self.context.data()) as u64
    }

    #[inline(always)]
    fn ingress(&self) -> InterfaceIndex {
        self.ingress
    }

    #[inline(always)]
    fn cut(&mut self, bytes: u32) -> bool {
        // SAFETY: the context of this run. No reference into the packet outlives the borrow of this frame.
        unsafe { helpers::bpf_xdp_adjust_tail(self.context.ctx, 0_i32.wrapping_sub(bytes as i32)) == 0 }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: u32) -> bool {
        // SAFETY: as above.
        unsafe { helpers::bpf_xdp_adjust_head(self.context.ctx, 0_i32.wrapping_sub(bytes as i32)) == 0 }
    }
}
