//! The routing generation. Flows look up their client's next hop again if it was found in an older generation.

use std::time::{Duration, Instant};

/// The shortest time between two changes: each makes all flows look up their next hop again.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub struct Generation {
    value: u32,
    raised: Option<Instant>,
    has_changed: bool,
}

impl Generation {
    /// Continues from the value in the maps.
    pub fn adopt(&mut self, value: u32) {
        self.value = value;
    }

    pub fn value(&self) -> u32 {
        self.value
    }

    pub fn routing_changed(&mut self) {
        self.has_changed = true;
    }

    /// Returns whether it was raised.
    pub fn raise_if_due(&mut self, now: Instant) -> bool {
        let is_due =
            self.has_changed && self.raised.is_none_or(|raised| now.duration_since(raised) >= INTERVAL);
        if is_due {
            *self = Self { value: self.value.wrapping_add(1), raised: Some(now), has_changed: false };
        }
        is_due
    }

    /// When it may be raised next, if a change is pending. A time in the past means at once.
    pub fn due(&self) -> Option<Instant> {
        self.raised.filter(|_| self.has_changed).map(|raised| raised + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_raise_it_once_a_second_and_the_last_one_counts() {
        let mut generation = Generation::default();
        let start = Instant::now();
        let mut raised = 0;

        for ms in (0..3_050).step_by(10) {
            if ms < 2_000 {
                generation.routing_changed();
            }
            raised += u32::from(generation.raise_if_due(start + Duration::from_millis(ms)));
        }

        assert_eq!((raised, generation.value()), (3, 3));
        assert_eq!(generation.due(), None);
    }
}
