//! The kernel's side of the core's traits. No decisions are made here.

pub mod counters;
pub mod direct;
pub mod frame;
pub mod maps;
pub mod pack;
pub mod programs;
pub mod routes;
pub mod slow_paths;
pub mod subprograms;
pub mod tables;
pub mod trace;

/// The kernel requires a license. `bpf_fib_lookup` is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
