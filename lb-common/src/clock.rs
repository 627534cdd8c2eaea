//! Time in packets and records.

/// Times are in ticks of 2^20 ns (1.05 ms), so that no packet needs a division. They wrap after 52 days: the timeout of a
/// flow that has been idle for that long starts again.
pub const TICK_SHIFT: u32 = 20;

/// Converts seconds to [ticks](TICK_SHIFT).
pub const fn ticks(seconds: u64) -> u32 {
    ((seconds * 1_000_000_000) >> TICK_SHIFT) as u32
}

/// Maximum difference between the clocks of two CPUs, and maximum time that a CPU may be preempted between reading its
/// clock and reading a record.
const SKEW: u32 = ticks(3600);

/// The age of `then`: the time since then plus [`SKEW`], so that a time ahead of this CPU's clock counts as recent.
/// (Clamping would make the verifier walk both branches of the clamp wherever an age is compared.)
#[inline(always)]
pub const fn age(now: u32, then: u32) -> u32 {
    now.wrapping_sub(then).wrapping_add(SKEW)
}

/// Is a time with this [`age`] more than `most` ago?
#[inline(always)]
pub const fn is_over(age: u32, most: u32) -> bool {
    age > most + SKEW
}

/// The time elapsed since a time with this [`age`].
pub const fn since(age: u32) -> u32 {
    age.saturating_sub(SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_long_ago_and_times_ahead_are_distinguished() {
        let now = ticks(1000);

        let ahead = age(now, now + ticks(3599));
        assert!(!is_over(ahead, 0) && since(ahead) == 0 && ahead < age(now, now));
        for seconds in [240, 7440, 26 * 86_400, 27 * 86_400, 52 * 86_400] {
            let age = age(now, now.wrapping_sub(ticks(seconds)));
            assert!(is_over(age, ticks(seconds) - 1) && !is_over(age, ticks(seconds)), "{seconds} s");
            assert_eq!(since(age), ticks(seconds));
        }
    }
}
