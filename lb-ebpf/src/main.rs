//! The XDP program, and the slow paths that it calls.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{macros::xdp, programs::XdpContext};
    use lb_common::net::{V4, V6};
    use lb_ebpf::{
        kernel::{counters, frame::XdpFrame, tables::KernelTables, trace},
        packet::frame::Frame as _,
        path::{
            icmp, new_flow,
            pipeline::{self, Verdict},
            refresh,
        },
    };

    /// Runs for every packet of an attached interface.
    #[xdp]
    pub fn lb(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| pipeline::run(frame, tables))
    }

    /// Runs for requests that belong to no known flow.
    #[xdp]
    pub fn new_flow4(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| trace::opened::<V4>(new_flow::run::<V4>(frame, tables)))
    }

    /// Runs for requests that belong to no known flow.
    #[xdp]
    pub fn new_flow6(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| trace::opened::<V6>(new_flow::run::<V6>(frame, tables)))
    }

    /// Runs for replies whose next hop must be looked up again.
    #[xdp]
    pub fn refresh4(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| refresh::run::<V4>(frame, tables))
    }

    /// Runs for replies whose next hop must be looked up again.
    #[xdp]
    pub fn refresh6(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| refresh::run::<V6>(frame, tables))
    }

    /// Runs for ICMP errors.
    #[xdp]
    pub fn icmp4(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| icmp::run::<V4>(frame, tables))
    }

    /// Runs for ICMPv6 errors.
    #[xdp]
    pub fn icmp6(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| icmp::run::<V6>(frame, tables))
    }

    #[inline(always)]
    fn run(ctx: &XdpContext, path: impl FnOnce(&mut XdpFrame<'_>, &KernelTables) -> Verdict) -> u32 {
        let mut frame = XdpFrame::new(ctx);
        let (ingress, bytes) = (frame.ingress(), frame.length());
        let verdict = path(&mut frame, &KernelTables(ctx.ctx));
        counters::record(verdict, ctx, ingress, bytes)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
