//! The XDP program, and the slow paths that it calls.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{macros::xdp, programs::XdpContext};
    use lb_ebpf::{kernel::programs::run, path::pipeline, slow_path_programs, slow_paths};

    /// Runs for every packet of an attached interface.
    #[xdp]
    pub fn lb(ctx: XdpContext) -> u32 {
        run(&ctx, |frame, tables| pipeline::run(frame, tables))
    }

    slow_paths!(slow_path_programs);
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
