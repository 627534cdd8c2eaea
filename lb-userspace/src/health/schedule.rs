//! When the probes of one backend start.
//!
//! ```text
//!   start          first      + interval    + 2 intervals
//!     ├─ jitter ─────┼─────────────┼─────────────┼──▶
//!                    probe 0       probe 1       probe 2
//! ```
//!
//! The grid is fixed: no probe's duration moves the next one. That is what lets the daemon promise that a backend
//! gets no new flow `fall * interval` after it began to refuse, plus `timeout` where it is silent: wherever the death
//! lies between two probes, `fall` of them start within `fall` intervals. (The promise about silent backends asks for
//! a timeout no longer than the interval: one backend never has two probes at once, so a longer one skips points.)
//!
//! Pure: times come in and go out as durations since the target was first seen.

use std::time::Duration;

use crate::spec::BackendName;

/// The grid of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    first: Duration,
    interval: Duration,
    last: Option<Duration>,
}

impl Schedule {
    /// The first probes of all backends are spread over one interval, by name: the same after every restart.
    pub fn new(backend: &BackendName, interval: Duration) -> Self {
        // A grid of no width would be a busy loop.
        let interval = interval.max(Duration::from_millis(1));
        Self { first: interval.mul_f64(fraction(backend)), interval, last: None }
    }

    /// When the next probe starts, if the one before it ended at `elapsed`; in the past means at once.
    ///
    /// A probe that ended after the next point makes that point late, not lost: with a timeout as long as the
    /// interval each point would be missed by a hair. Of several points missed only the last is made up for.
    pub fn next(&mut self, elapsed: Duration) -> Duration {
        let next = match self.last {
            None => self.first,
            Some(last) => {
                let due = last + self.interval;
                let late = elapsed.saturating_sub(due);
                let past_a_point = Duration::from_nanos_u128(late.as_nanos() % self.interval.as_nanos());
                due + late - past_a_point
            }
        };
        self.last = Some(next);
        next
    }
}

/// 0 <= fraction < 1, from the name (FNV-1a: small, and the same in every build).
fn fraction(backend: &BackendName) -> f64 {
    let name = backend.service.bytes().chain([b'/']).chain(backend.backend.bytes());
    let hash = name.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // Names that differ only in their last letter differ little in the top bits: fold and spread them
    // (Knuth, multiplicative hashing).
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn probes_stay_on_the_grid_whatever_they_take() {
        let mut schedule = Schedule::new(&web(1), SECOND);
        let first = schedule.next(Duration::ZERO);

        // Quick, slow, as long as the interval, later than the next point, later than three points.
        for (ended, expected) in [(0.01, 1), (1.9, 2), (3.0, 3), (4.002, 4), (8.3, 8), (8.4, 9)] {
            let next = schedule.next(first + SECOND.mul_f64(ended));

            assert_eq!(next, first + SECOND * expected, "after a probe that ended at {ended}");
        }
    }

    #[test]
    fn first_probes_are_spread_over_one_interval_and_the_same_every_time() {
        let firsts = |count| (0..count).map(|n| Schedule::new(&web(n), SECOND).next(Duration::ZERO));
        let mut tenths = [0; 10];

        for first in firsts(1000) {
            assert!(first < SECOND);
            tenths[(first.as_millis() / 100) as usize] += 1;
        }

        assert!(firsts(1000).eq(firsts(1000)));
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }

    proptest! {
        #[test]
        fn starts_never_go_back_never_leave_the_grid_and_skip_only_what_is_past(
            interval_ms in 0u64..5_000,
            durations_ms in proptest::collection::vec(0u64..20_000, 1..50),
        ) {
            let interval = Duration::from_millis(interval_ms.max(1));
            let mut schedule = Schedule::new(&web(7), Duration::from_millis(interval_ms));
            let first = schedule.next(Duration::ZERO);
            let (mut last, mut elapsed) = (first, first);

            for duration in durations_ms {
                elapsed += Duration::from_millis(duration);
                let next = schedule.next(elapsed);

                prop_assert_eq!((next - first).as_nanos() % interval.as_nanos(), 0);
                prop_assert!(next >= last + interval);
                prop_assert!(next == last + interval || (next <= elapsed && elapsed - next < interval));
                last = next;
                elapsed = elapsed.max(next);
            }
        }
    }

    fn web(number: u32) -> BackendName {
        BackendName::new("web", &format!("web-{number}"))
    }
}
