//! Slow starts: a backend that comes up gets its weight in steps.
//!
//! In the first tenth of the time it has a tenth of its weight, in the second two tenths, and in the last all of it.
//! Only the beginning is kept: the service says how long a slow start takes, so a reload that changes that applies at
//! once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::spec::{BackendName, SLOW_START_STEPS as STEPS};

/// The shortest time between two steps: each costs the services concerned another schedule. What falls due within it is
/// done together.
const INTERVAL: Duration = Duration::from_millis(100);

/// The slow starts under way. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct SlowStarts {
    by_name: BTreeMap<BackendName, SlowStart>,
    /// No step is due before.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub struct SlowStart {
    began: Instant,
    /// The part of its weight that it has: 1 to 9.
    tenths: u32,
}

impl SlowStarts {
    /// A backend comes up. If it has a slow start already, that begins again.
    pub fn begin(&mut self, name: BackendName, length: Duration, now: Instant) {
        if length.is_zero() {
            return;
        }
        let begun = SlowStart { began: now, tenths: 1 };
        let due = begun.next(length).max(now + INTERVAL);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.by_name.insert(name, begun);
    }

    /// Takes the steps that are due, if the slow start of each backend takes `length`. Returns the services whose
    /// shares have changed.
    pub fn advance(&mut self, now: Instant, length: impl Fn(&BackendName) -> Duration) -> BTreeSet<String> {
        let (mut services, mut due) = (BTreeSet::new(), None);
        self.by_name.retain(|name, slow_start| {
            let length = length(name);
            let tenths = slow_start.tenths_at(now, length);
            if tenths != slow_start.tenths {
                services.insert(name.service.clone());
            }
            if tenths == STEPS {
                return false;
            }
            slow_start.tenths = tenths;
            due = due.into_iter().chain([slow_start.next(length)]).min();
            true
        });
        self.due = due.map(|due| due.max(now + INTERVAL));
        services
    }

    /// When to [`advance`](Self::advance).
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The part of its weight that a backend has.
    pub fn tenths(&self, name: &BackendName) -> u32 {
        self.by_name.get(name).map_or(STEPS, |slow_start| slow_start.tenths)
    }

    /// Removes those with certain names, which may go on with other names.
    pub fn take(&mut self, is_meant: impl Fn(&BackendName) -> bool) -> BTreeMap<BackendName, SlowStart> {
        self.by_name.extract_if(.., |name, _| is_meant(name)).collect()
    }

    /// A slow start goes on with this name.
    pub fn put(&mut self, name: BackendName, slow_start: SlowStart) {
        self.by_name.insert(name, slow_start);
    }
}

impl SlowStart {
    fn tenths_at(&self, now: Instant, length: Duration) -> u32 {
        let passed = now.saturating_duration_since(self.began);
        if passed >= length {
            return STEPS;
        }
        1 + (passed.as_nanos() * u128::from(STEPS) / length.as_nanos()) as u32
    }

    fn next(&self, length: Duration) -> Instant {
        self.began + length * self.tenths / STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    #[test]
    fn ten_equal_steps_lead_to_the_full_weight() {
        let (mut slow_starts, start, name) = (SlowStarts::default(), Instant::now(), name("web-1"));
        slow_starts.begin(name.clone(), LENGTH, start);

        let mut steps = vec![(Duration::ZERO, slow_starts.tenths(&name))];
        while let Some(due) = slow_starts.due() {
            let early = due - Duration::from_nanos(1);
            assert!(slow_starts.clone().advance(early, |_| LENGTH).is_empty());
            assert_eq!(slow_starts.advance(due, |_| LENGTH), ["web".to_owned()].into());
            steps.push((due - start, slow_starts.tenths(&name)));
        }

        let expected: Vec<_> = (1..=10).map(|tenths| (LENGTH / 10 * (tenths - 1), tenths)).collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn after_a_long_sleep_all_missed_steps_are_taken_at_once() {
        let (mut slow_starts, start) = (SlowStarts::default(), Instant::now());
        slow_starts.begin(name("web-1"), LENGTH, start);
        slow_starts.begin(name("web-2"), LENGTH, start + LENGTH / 2);

        slow_starts.advance(start + LENGTH, |_| LENGTH);

        assert_eq!((slow_starts.tenths(&name("web-1")), slow_starts.tenths(&name("web-2"))), (10, 6));
    }

    #[test]
    fn another_length_counts_from_the_same_beginning() {
        for (length, tenths) in [(LENGTH, 4), (LENGTH * 3, 2), (LENGTH / 3, 10), (Duration::ZERO, 10)] {
            let (mut slow_starts, start, name) = (SlowStarts::default(), Instant::now(), name("web-1"));
            slow_starts.begin(name.clone(), LENGTH, start);

            slow_starts.advance(start + LENGTH * 35 / 100, |_| length);

            assert_eq!(slow_starts.tenths(&name), tenths, "{length:?}");
            assert_eq!(slow_starts.due().is_none(), tenths == 10, "{length:?}");
        }
    }

    #[test]
    fn steps_of_many_backends_are_taken_ten_times_a_second_at_most() {
        let (mut slow_starts, start) = (SlowStarts::default(), Instant::now());
        for n in 0..1_000 {
            let length = Duration::from_millis(1 + n % 7);
            slow_starts.begin(name(&format!("web-{n}")), length, start + Duration::from_millis(n));
        }
        let (mut turns, shortest) = (Vec::new(), Duration::from_millis(100));

        while let Some(due) = slow_starts.due() {
            slow_starts.advance(due, |_| LENGTH);
            turns.push(due);
        }

        assert!(turns[0] - start >= shortest);
        assert!(turns.windows(2).all(|pair| pair[1] - pair[0] >= shortest));
    }

    fn name(backend: &str) -> BackendName {
        BackendName::new("web", backend)
    }
}
