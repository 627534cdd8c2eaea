//! What the XDP programs of all objects have in common.

use aya_ebpf::programs::XdpContext;

use super::{counters, frame::XdpFrame, tables::KernelTables};
use crate::{packet::frame::Frame as _, path::pipeline::Verdict};

/// Runs a path for a packet, counts its verdict, and returns the XDP action.
#[inline(always)]
pub fn run(ctx: &XdpContext, path: impl FnOnce(&mut XdpFrame<'_>, &KernelTables) -> Verdict) -> u32 {
    let mut frame = XdpFrame::new(ctx);
    let (ingress, bytes) = (frame.ingress(), frame.length());
    let verdict = path(&mut frame, &KernelTables(ctx.ctx));
    counters::record(verdict, ctx, ingress, bytes)
}

/// Defines the programs of [`slow_paths`](crate::slow_paths), two for each line.
#[macro_export]
macro_rules! slow_path_programs {
    ($($module:ident $constant:ident: $v4:ident $program4:ident, $v6:ident $program6:ident, $about:literal;)*) => {
        $(
            #[doc = $about]
            #[::aya_ebpf::macros::xdp]
            pub fn $program4(ctx: ::aya_ebpf::programs::XdpContext) -> u32 {
                $crate::kernel::programs::run(&ctx, |frame, tables| {
                    $crate::path::$module::run::<::lb_common::net::V4>(frame, tables)
                })
            }

            #[doc = $about]
            #[::aya_ebpf::macros::xdp]
            pub fn $program6(ctx: ::aya_ebpf::programs::XdpContext) -> u32 {
                $crate::kernel::programs::run(&ctx, |frame, tables| {
                    $crate::path::$module::run::<::lb_common::net::V6>(frame, tables)
                })
            }
        )*
    };
}
