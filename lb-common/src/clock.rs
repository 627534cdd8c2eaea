//! Time in packets and records.

use core::time::Duration;

/// A moment of the coarse clock, or the time between two moments.
///
/// One tick is 2^20 ns (1.05 ms), so that no packet needs a division. Moments wrap after 52 days: a flow that has been
/// idle for that long seems to have been active just now.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks(pub u32);

impl Ticks {
    const SHIFT: u32 = 20;

    /// The moment at which the clock shows this many nanoseconds.
    #[inline(always)]
    pub const fn from_ns(nanoseconds: u64) -> Self {
        Self((nanoseconds >> Self::SHIFT) as u32)
    }

    /// A number of seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self::from_ns(seconds * 1_000_000_000)
    }

    /// The time between two moments.
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos((self.0 as u64) << Self::SHIFT)
    }

    /// The moment this much earlier.
    #[inline(always)]
    #[must_use]
    pub const fn earlier_by(self, time: Self) -> Self {
        Self(self.0.wrapping_sub(time.0))
    }
}

crate::plain!(Ticks = "u32");

/// How long ago a moment was, plus an hour (`SKEW`), so that a moment ahead of this CPU's clock counts as recent.
/// (Clamping would make the verifier walk both branches of the clamp wherever an age is compared.)
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(pub u32);

impl Age {
    /// Maximum difference between the clocks of two CPUs, and maximum time that a CPU may be preempted between reading its
    /// clock and reading a record.
    const SKEW: u32 = Ticks::from_seconds(3600).0;

    /// The age of the moment `then`.
    #[inline(always)]
    pub const fn new(now: Ticks, then: Ticks) -> Self {
        Self(now.0.wrapping_sub(then.0).wrapping_add(Self::SKEW))
    }

    /// Is the moment longer ago than `most`?
    #[inline(always)]
    pub const fn is_over(self, most: Ticks) -> bool {
        self.excess(most) > 0
    }

    /// By how many ticks the moment is longer ago than `most`. Negative: it is not.
    #[inline(always)]
    pub const fn excess(self, most: Ticks) -> i64 {
        self.0 as i64 - (most.0 + Self::SKEW) as i64
    }

    /// The time since the moment.
    pub const fn elapsed(self) -> Ticks {
        Ticks(self.0.saturating_sub(Self::SKEW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_long_ago_and_times_ahead_are_distinguished() {
        let now = Ticks::from_seconds(1000);

        let ahead = Age::new(now, Ticks::from_seconds(1000 + 3599));
        assert!(!ahead.is_over(Ticks(0)) && ahead.elapsed() == Ticks(0) && ahead < Age::new(now, now));
        for seconds in [240, 7440, 26 * 86_400, 27 * 86_400, 52 * 86_400] {
            let time = Ticks::from_seconds(seconds);
            let age = Age::new(now, now.earlier_by(time));
            assert!(age.is_over(Ticks(time.0 - 1)) && !age.is_over(time), "{seconds} s");
            assert_eq!(age.elapsed(), time);
        }
    }
}
