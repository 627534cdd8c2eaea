//! The product's program, but each packet stays in it for some 20 ms before it reaches its slow path.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::xdp, programs::XdpContext};
    use lb_common::net::{V4, V6};
    use lb_ebpf::{
        kernel::{counters, frame::XdpFrame, tables::KernelTables},
        packet::frame::Frame as _,
        path::{
            self,
            pipeline::{self, Verdict},
        },
    };

    /// Reads of the clock, about 25 ns each. The verifier follows each.
    const READS: u32 = 100_000;
    const REPETITIONS: u32 = 8;

    /// Takes milliseconds. The verifier checks a global function once, however often it is called.
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn delay() -> u32 {
        let mut read = 0;
        while read < READS {
            // SAFETY: a helper without arguments.
            unsafe { bpf_ktime_get_ns() };
            read += 1;
        }
        read
    }

    /// The fast path.
    #[xdp]
    pub fn lb(ctx: XdpContext) -> u32 {
        let mut repetition = 0;
        while repetition < REPETITIONS {
            delay();
            repetition += 1;
        }
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
