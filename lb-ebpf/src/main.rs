//! The XDP program, and the slow paths that it calls.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{macros::xdp, programs::XdpContext};
    use lb_common::net::{V4, V6};
    use lb_ebpf::{
        kernel::{counters, frame::XdpFrame, tables::KernelTables},
        packet::frame::Frame as _,
        path::{
            self,
            pipeline::{self, Verdict},
        },
    };

    /// Runs for every packet of an attached interface.
    #[xdp]
    pub fn lb(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| pipeline::run(frame, tables))
    }

    macro_rules! programs {
        ($($module:ident $constant:ident: $v4:ident $program4:ident, $v6:ident $program6:ident, $about:literal;)*) => {
            $(
                #[doc = $about]
                #[xdp]
                pub fn $program4(ctx: XdpContext) -> u32 {
                    run(&ctx, |frame, tables| path::$module::run::<V4>(frame, tables))
                }

                #[doc = $about]
                #[xdp]
                pub fn $program6(ctx: XdpContext) -> u32 {
                    run(&ctx, |frame, tables| path::$module::run::<V6>(frame, tables))
                }
            )*
        };
    }

    lb_ebpf::slow_paths!(programs);

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
