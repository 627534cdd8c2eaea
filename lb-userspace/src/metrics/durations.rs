//! How long health checks took: a histogram as a plain value.

use std::time::Duration;

use prometheus::proto;

/// Upper limits in microseconds: from a backend on the same switch to the longest timeouts in use.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// Counts of durations, by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Not cumulative. Durations above the last limit are counted only in `count`.
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

    pub(super) fn to_histogram(&self) -> proto::Histogram {
        let mut below = 0;
        let buckets = BOUNDS_US.iter().zip(self.buckets).map(|(bound, count)| {
            below += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(Duration::from_micros(*bound).as_secs_f64());
            bucket.set_cumulative_count(below);
            bucket
        });

        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum.as_secs_f64());
        histogram
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

        let histogram = durations.to_histogram();

        let at = |bound: f64| {
            let mut buckets = histogram.get_bucket().iter();
            buckets.find(|bucket| bucket.upper_bound() == bound).map(|bucket| bucket.cumulative_count())
        };
        assert_eq!((at(0.0005), at(0.001), at(0.0025), at(0.005)), (Some(0), Some(2), Some(2), Some(3)));
        assert_eq!((at(5.0), histogram.get_sample_count()), (Some(3), 4));
        assert!((histogram.get_sample_sum() - 60.005).abs() < 1e-9);
    }
}
