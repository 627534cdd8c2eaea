//! Hiding constants from the verifier.
//!
//! The verifier explores each path through a loop separately as long as known constants differ. What a scan remembers
//! (the best way so far, a count) differs on every path, so none is pruned: a scan of eight ways costs thousands of
//! visited instructions. If the verifier does not know the value, it can prune.

/// The same value, unknown to the verifier as long as `unknown` (something read from memory) is.
#[inline(always)]
pub fn opaque(value: u64, unknown: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let same: u64;
        // SAFETY: one move between registers. The compiler cannot see that the two are the same, so it does not fold
        // their difference; the verifier does not fold differences of unknown numbers.
        unsafe {
            core::arch::asm!("{same} = {unknown}", same = out(reg) same, unknown = in(reg) unknown, options(nomem, nostack, pure))
        };
        value.wrapping_add(unknown.wrapping_sub(same))
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = unknown;
        value
    }
}
