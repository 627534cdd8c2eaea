//! Passive ejection: a backend that keeps failing gets no new flows for a while, except one at a time that probes it.
//!
//! ```text
//! serving ── 3rd failure in a row ──▶ ejected for 1 s ── then a new flow probes it ──▶ ejected for 2 s, 4 s, 8 s, 8 s ...
//!    ▲                                      │                                             │
//!    └──────── an answer to a new flow, or a successful health check ◀────────────────────┘
//! ```

use crate::clock::{Age, Ticks};

/// Failures in a row that eject a backend.
pub const FAILURES: u32 = 3;
/// A failure: the SYN of a client was repeated without an answer after this time. The smallest retransmission timeout of
/// a SYN is one second (RFC 6298, 2.1), measured with a clock that moves every 10 ms at most.
pub const UNANSWERED: Ticks = Ticks::from_ns(980_000_000);
/// Doublings of the time for which a backend is ejected, from one second on.
const DOUBLINGS: u32 = 3;

/// What is known of a backend's failures: `failures (24) | level (8) | until (32)`. Zero: its last new flow was
/// answered.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection(pub u64);

impl Ejection {
    /// Serving, and no failure since the last answer.
    pub const NONE: Self = Self(0);

    /// How often it has been ejected in a row, up to a limit. 0: it is not ejected.
    #[inline(always)]
    pub const fn level(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff
    }

    /// Is the backend ejected?
    #[inline(always)]
    pub const fn is_ejected(self) -> bool {
        self.level() != 0
    }

    /// The number of failures in a row. Not counted further while the backend is ejected.
    #[inline(always)]
    pub const fn failures(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// After another failure, of a backend that is not ejected.
    #[inline(always)]
    #[must_use]
    pub const fn after_failure(self) -> Self {
        Self((self.failures() as u64 + 1) << 40)
    }

    /// Is it time to probe an ejected backend?
    #[inline(always)]
    pub const fn may_be_probed(self, now: Ticks) -> bool {
        self.overdue(now) > 0
    }

    /// For how long an ejected backend may have been probed, in ticks. Not above 0: it may not be probed yet.
    #[inline(always)]
    pub const fn overdue(self, now: Ticks) -> i64 {
        Age::new(now, Ticks(self.0 as u32)).excess(Ticks(0))
    }

    /// Ejected from `now` on, for longer than before.
    #[inline(always)]
    #[must_use]
    pub const fn longer(self, now: Ticks) -> Self {
        let level = self.level();
        let next = if level > DOUBLINGS { level } else { level + 1 };
        let until = now.0.wrapping_add(Ticks::from_seconds(1).0 << (next - 1));
        Self((self.failures() as u64) << 40 | (next as u64) << 32 | until as u64)
    }
}

crate::plain!(Ejection = "ejection: failures 24, level 8, until 32");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ejection_is_twice_as_long_as_the_one_before_up_to_eight_seconds() {
        let now = Ticks(u32::MAX - 2000); // The clock wraps meanwhile.
        let mut ejection = Ejection::NONE.after_failure().after_failure().after_failure();
        assert_eq!((ejection.failures(), ejection.is_ejected()), (FAILURES, false));

        for seconds in [1, 2, 4, 8, 8, 8] {
            ejection = ejection.longer(now);
            let until = now.0.wrapping_add(Ticks::from_seconds(1).0 * seconds);

            assert!(ejection.is_ejected() && ejection.failures() == FAILURES);
            assert!(!ejection.may_be_probed(now) && !ejection.may_be_probed(Ticks(until)), "{seconds} s");
            assert!(ejection.may_be_probed(Ticks(until.wrapping_add(1))), "{seconds} s");
        }
    }
}
