//! How long health checks took: a histogram as a plain value.

use std::time::Duration;

use super::family::Histogram;

/// Upper limits in microseconds: from a backend on the same switch to the longest timeouts in use.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// The same in seconds, as labels.
const BOUNDS_SECONDS: [&str; BOUNDS_US.len()] = [
    "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1",
    "2.5", "5",
];

/// Counts of durations, by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Not cumulative. What is above the last limit is only in `count`.
    buckets: [u64; BOUNDS_US.len()],
    count: u64,
    sum: Duration,
}

impl Durations {
    pub fn observe(&mut self, duration: Duration) {
        let bucket = BOUNDS_US.iter().position(|bound| duration <= Duration::from_micros(*bound));
        if let Some(bucket) = bucket {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += duration;
    }

    /// Calls `write` with the histogram.
    pub(super) fn with_histogram(&self, write: impl FnOnce(&Histogram<'_>)) {
        let mut below = 0;
        let mut buckets = [("", 0); BOUNDS_US.len()];
        for (bucket, (bound, count)) in buckets.iter_mut().zip(BOUNDS_SECONDS.iter().zip(self.buckets)) {
            below += count;
            *bucket = (*bound, below);
        }
        write(&Histogram { buckets: &buckets, count: self.count, sum: self.sum.as_secs_f64() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_accumulate_and_the_longest_is_in_the_count_alone() {
        let mut durations = Durations::default();
        for duration_ms in [1, 1, 3, 60_000] {
            durations.observe(Duration::from_millis(duration_ms));
        }

        durations.with_histogram(|histogram| {
            let at = |bound: &str| histogram.buckets.iter().find(|it| it.0 == bound).map(|it| it.1);
            assert_eq!(
                (at("0.0005"), at("0.001"), at("0.0025"), at("0.005")),
                (Some(0), Some(2), Some(2), Some(3))
            );
            assert_eq!((at("5"), histogram.count), (Some(3), 4));
            assert!((histogram.sum - 60.005).abs() < 1e-9);
        });
    }

    #[test]
    fn labels_are_the_bounds_in_seconds() {
        for (bound, label) in BOUNDS_US.iter().zip(BOUNDS_SECONDS) {
            assert_eq!(Duration::from_micros(*bound).as_secs_f64().to_string(), label);
        }
    }
}
