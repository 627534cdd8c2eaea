//! Tail calls into the slow paths.

use aya_ebpf::programs::XdpContext;

use super::maps;
use crate::path::slow::SlowPath;

macro_rules! calls {
    ($($module:ident $constant:ident: $v4:ident $program4:ident, $v6:ident $program6:ident, $about:literal;)*) => {
        /// Tail-calls a slow path. Returns only if the program array has no such entry.
        #[inline(always)]
        pub fn go(ctx: &XdpContext, path: SlowPath) {
            match path {
                $(
                    SlowPath::$v4 => jump::<{ SlowPath::$v4 as i32 }>(ctx),
                    SlowPath::$v6 => jump::<{ SlowPath::$v6 as i32 }>(ctx),
                )*
            }
        }
    };
}

crate::slow_paths!(calls);

/// `bpf_tail_call` with a constant number: the JIT then emits a direct jump, which it patches when the array changes.
/// Without `asm!`, LLVM would merge calls with different numbers into one call with a variable.
#[inline(always)]
fn jump<const NUMBER: i32>(ctx: &XdpContext) {
    // SAFETY: helper 12 takes the context, a program array and a number. It clobbers the caller-saved registers, and
    // returns only if the program is missing.
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
