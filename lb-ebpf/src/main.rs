//! The XDP program.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{macros::xdp, programs::XdpContext};
    use lb_ebpf::{
        kernel::{counters, frame::XdpFrame, tables::KernelTables},
        packet::frame::Frame as _,
        path::pipeline,
    };

    /// Runs for every packet of an attached interface.
    #[xdp]
    #[inline(always)]
    pub fn lb(ctx: XdpContext) -> u32 {
        let mut frame = XdpFrame(&ctx);
        let bytes = frame.length();
        let verdict = pipeline::run(&mut frame, &KernelTables(ctx.ctx));
        counters::record(verdict, &ctx, bytes)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
