//! A program that passes every packet, for tests that need many programs.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    // Its licence and panic handler.
    use lb_ebpf as _;

    /// Passes every packet.
    #[xdp]
    pub fn pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
