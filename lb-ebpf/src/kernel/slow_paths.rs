//! Tail calls into the slow paths.

use aya_ebpf::programs::XdpContext;

use super::maps;
use crate::path::slow::SlowPath;

/// Hands a packet on. Returns only if the slow path is missing.
#[inline(always)]
pub fn go(ctx: &XdpContext, path: SlowPath) {
    match path {
        SlowPath::NewFlow4 => jump::<{ SlowPath::NewFlow4 as i32 }>(ctx),
        SlowPath::NewFlow6 => jump::<{ SlowPath::NewFlow6 as i32 }>(ctx),
        SlowPath::Refresh4 => jump::<{ SlowPath::Refresh4 as i32 }>(ctx),
        SlowPath::Refresh6 => jump::<{ SlowPath::Refresh6 as i32 }>(ctx),
        SlowPath::Icmp4 => jump::<{ SlowPath::Icmp4 as i32 }>(ctx),
        SlowPath::Icmp6 => jump::<{ SlowPath::Icmp6 as i32 }>(ctx),
    }
}

/// `bpf_tail_call` with the number in the instruction: the JIT then emits a direct jump that it patches when the array
/// changes. LLVM would merge the calls of several numbers into one with a variable.
#[inline(always)]
fn jump<const NUMBER: i32>(ctx: &XdpContext) {
    // SAFETY: helper 12 takes the context, a program array and a number. It clobbers the caller-saved registers and
    // returns only if there is no such program.
    unsafe {
        core::arch::asm!(
            "r3 = {number}",
            "call 12",
            number = const NUMBER,
            inout("r1") ctx.ctx => _,
            inout("r2") &raw const maps::SLOW_PATHS => _,
            lateout("r0") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
}
