//! When the probes of one backend start.
//!
//! ```text
//!   first           phase           + interval      + 2 intervals
//!     ├─ < interval ──┼───────────────┼───────────────┼──▶
//!   probe 0         probe 1         probe 2         probe 3
//! ```
//!
//! The first probe is immediate, because the backend gets no flows before it. If many backends are new at once, their
//! first probes are [spread](first_start) over a second. From the second probe on, each backend has a fixed grid
//! whose phase follows from its name, so that probes do not come in bursts.
//!
//! The duration of a probe does not shift the next one. So a failed backend gets no new flow after `fall * interval` if
//! it refuses connections, or `fall * interval + timeout` if it is silent: whenever it fails, `fall` probes start
//! within `fall` intervals. (For silent backends this requires a timeout no longer than the interval: a backend never
//! has two probes at once, so a longer timeout skips points of the grid.)
//!
//! No clock is read: times are arguments and results, as durations since the target was first seen.

use std::time::Duration;

use crate::spec::BackendName;

/// The time over which the first probes of many new backends are spread.
pub const FIRST_PROBES_SPREAD: Duration = Duration::from_secs(1);
/// The longest time between two of those, so that a few backends are probed without delay.
const FIRST_PROBES_GAP: Duration = Duration::from_millis(2);

/// When the first probe starts, for the backend at `position` among `count` new ones.
pub fn first_start(position: usize, count: usize) -> Duration {
    let gap = (FIRST_PROBES_SPREAD / u32::try_from(count.max(1)).unwrap_or(u32::MAX)).min(FIRST_PROBES_GAP);
    gap * u32::try_from(position).unwrap_or(u32::MAX)
}

/// The start times of one backend's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    first: Duration,
    interval: Duration,
    /// From the last start to the next point of the grid.
    step: Duration,
    last: Option<Duration>,
}

impl Schedule {
    /// The phase of the grid follows from the name: it is the same after each restart.
    pub fn new(backend: &BackendName, first: Duration, interval: Duration) -> Self {
        // A grid without width would be a busy loop.
        let interval = interval.max(Duration::from_millis(1));
        Self { first, interval, step: interval.mul_f64(fraction(backend)), last: None }
    }

    /// When the next probe starts, if the one before ended at `elapsed`. A time in the past means at once.
    ///
    /// If a probe ends after the next point, that point is used late rather than skipped: with a timeout as long as the
    /// interval, each point would be missed by a few microseconds. If several points were missed, only the last one is
    /// used.
    pub fn next(&mut self, elapsed: Duration) -> Duration {
        let next = match self.last {
            None => self.first,
            Some(last) => {
                let due = last + std::mem::replace(&mut self.step, self.interval);
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
    // Names that differ only in their last letter differ little in the top bits, so fold and spread them (Knuth,
    // multiplicative hashing).
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_backends_are_probed_at_once_and_many_within_a_second() {
        assert_eq!(first_start(0, 1), Duration::ZERO);
        assert_eq!(first_start(9, 10), Duration::from_millis(18));
        for count in [500, 501, 4096, 100_000] {
            let starts: Vec<_> = (0..count).map(|position| first_start(position, count)).collect();

            assert!(starts.is_sorted_by(|a, b| a < b), "{count}");
            assert!(starts[count - 1] > FIRST_PROBES_SPREAD * 9 / 10, "{count}");
            assert!(starts[count - 1] <= FIRST_PROBES_SPREAD, "{count}");
        }
    }

    #[test]
    fn the_first_probe_waits_for_no_interval() {
        let mut schedule = Schedule::new(&web(1), Duration::ZERO, SECOND * 3600);

        assert_eq!(schedule.next(Duration::ZERO), Duration::ZERO);
        assert!(schedule.next(Duration::ZERO) < SECOND * 3600);
    }

    #[test]
    fn probes_stay_on_the_grid_whatever_they_take() {
        let mut schedule = Schedule::new(&web(1), Duration::ZERO, SECOND);
        schedule.next(Duration::ZERO);
        let first = schedule.next(Duration::ZERO);

        // Quick, slow, as long as the interval, later than the next point, later than three points.
        for (ended, expected) in [(0.01, 1), (1.9, 2), (3.0, 3), (4.002, 4), (8.3, 8), (8.4, 9)] {
            let next = schedule.next(first + SECOND.mul_f64(ended));

            assert_eq!(next, first + SECOND * expected, "after a probe that ended at {ended}");
        }
    }

    #[test]
    fn later_probes_are_spread_over_one_interval_and_the_same_every_time() {
        let phases = |count| {
            (0..count).map(|n| {
                let mut schedule = Schedule::new(&web(n), Duration::ZERO, SECOND);
                schedule.next(Duration::ZERO);
                schedule.next(Duration::ZERO)
            })
        };
        let mut tenths = [0; 10];

        for phase in phases(1000) {
            assert!(phase < SECOND);
            tenths[(phase.as_millis() / 100) as usize] += 1;
        }

        assert!(phases(1000).eq(phases(1000)));
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }

    proptest! {
        #[test]
        fn starts_never_go_back_never_leave_the_grid_and_skip_only_what_is_past(
            interval_ms in 0u64..5_000,
            first_ms in 0u64..1_000,
            durations_ms in proptest::collection::vec(0u64..20_000, 1..50),
        ) {
            let interval = Duration::from_millis(interval_ms.max(1));
            let first = Duration::from_millis(first_ms);
            let mut schedule = Schedule::new(&web(7), first, Duration::from_millis(interval_ms));
            prop_assert_eq!(schedule.next(Duration::ZERO), first);
            let second = schedule.next(first);
            prop_assert!((first..first + interval).contains(&second));
            let (mut last, mut elapsed) = (second, second);

            for duration in durations_ms {
                elapsed += Duration::from_millis(duration);
                let next = schedule.next(elapsed);

                prop_assert_eq!((next - second).as_nanos() % interval.as_nanos(), 0);
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
