//! The product's program, but each packet stays in it for about 20 ms before it reaches its slow path.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::xdp, programs::XdpContext};
    use lb_ebpf::{kernel::programs::run, path::pipeline, slow_path_programs, slow_paths};

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

    slow_paths!(slow_path_programs);
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
