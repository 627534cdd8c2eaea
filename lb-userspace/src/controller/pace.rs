//! How often changes of health rebuild schedules.
//!
//! A change is applied at once if there were few before it. If there are many, because backends flap, changes wait and are
//! applied together. Commands, reloads and repairs never wait.

use std::time::{Duration, Instant};

/// At most ten in any second: a burst of four, and six more.
const INTERVAL: Duration = Duration::from_millis(150);
const BURST: u32 = 4;

/// A token bucket, kept as the time at which it will be full (GCRA).
#[derive(Debug)]
pub struct Pace {
    full: Instant,
}

impl Pace {
    pub const fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// When the next change may be applied.
    pub fn due(&self) -> Option<Instant> {
        self.full.checked_sub(INTERVAL * (BURST - 1))
    }

    /// A change is applied.
    pub fn take(&mut self, now: Instant) {
        self.full = self.full.max(now) + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_ten_in_a_second_and_after_a_pause_four_at_once() {
        let start = Instant::now();
        let (mut pace, mut now, mut taken) = (Pace::new(start), start, Vec::new());
        while now < start + Duration::from_secs(60) {
            if pace.due().is_none_or(|due| due <= now) {
                pace.take(now);
                taken.push(now);
            } else {
                now += Duration::from_millis(1);
            }
        }

        assert_eq!(taken[..4], [start; 4]);
        for (place, first) in taken.iter().enumerate() {
            let within = taken[place..].iter().take_while(|it| **it < *first + Duration::from_secs(1));
            assert!(within.count() <= 10);
        }
        assert!(taken.len() > 6 * 60);

        now += Duration::from_secs(1);
        (0..4).for_each(|_| {
            assert!(pace.due().unwrap() <= now);
            pace.take(now);
        });
        assert!(pace.due().unwrap() > now);
    }
}
