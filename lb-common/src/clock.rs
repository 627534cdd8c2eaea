//! Time, as packets and records have it.

/// Times are in ticks of 2^20 ns (1.05 ms), so that no packet divides. They wrap after 52 days: a flow that nobody has
/// spoken on for as long has its timeout once more.
pub const TICK_SHIFT: u32 = 20;

/// Seconds in [ticks](TICK_SHIFT).
pub const fn ticks(seconds: u64) -> u32 {
    ((seconds * 1_000_000_000) >> TICK_SHIFT) as u32
}

/// How far one CPU's clock may be ahead of another's, or how long a CPU may stand still between a look at its clock
/// and one at a record.
const SKEW: u32 = ticks(3600);

/// How old `then` is: how long ago it was, and a [`SKEW`] more, so that a moment which another CPU's clock has not
/// reached yet is young. (To clamp it instead costs the verifier both sides of the clamp wherever an age is compared.)
#[inline(always)]
pub const fn age(now: u32, then: u32) -> u32 {
    now.wrapping_sub(then).wrapping_add(SKEW)
}

/// Was a moment of this [`age`] longer ago than `most`?
#[inline(always)]
pub const fn is_over(age: u32, most: u32) -> bool {
    age > most + SKEW
}

/// How long ago a moment of this [`age`] was.
pub const fn since(age: u32) -> u32 {
    age.saturating_sub(SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_long_ago_is_told_from_one_that_is_yet_to_come() {
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
