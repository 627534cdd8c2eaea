//! The part of a backend's weight that counts for new flows.

use crate::{
    probe::WeightPercent,
    spec::{SLOW_START_STEPS, rules::MAX_WEIGHT},
};

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of a backend that comes up: 1 to 10.
    pub tenths: u32,
    /// According to its agent.
    pub percent: WeightPercent,
}

impl Part {
    /// The whole weight.
    pub const ALL: Self = Self { tenths: SLOW_START_STEPS, percent: WeightPercent::ALL };

    /// The effective weight in tenths, rounded up: at most ten times the highest weight.
    pub fn of(self, weight: u32) -> u32 {
        let hundredths = weight.saturating_mul(self.percent.0).min(MAX_WEIGHT * WeightPercent::ALL.0);
        (hundredths * self.tenths).div_ceil(WeightPercent::ALL.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_rounded_up_and_limited() {
        let cases = [
            (100, 10, 100, 1_000),
            (100, 1, 100, 100),
            (1, 1, 100, 1),
            (100, 10, 75, 750),
            (100, 3, 75, 225),
            (1, 1, 1, 1),
            (100, 10, 0, 0),
            (0, 10, 100, 0),
            (100, 10, 1_000, 10_000),
            (100, 10, 1_001, 10_000),
            (1_000, 10, 25_600, 10_000),
            (1_000, 5, 25_600, 5_000),
            (u32::MAX, 10, 25_600, 10_000),
        ];
        for (weight, tenths, percent, expected) in cases {
            let part = Part { tenths, percent: WeightPercent(percent) };

            assert_eq!(part.of(weight), expected, "{weight}, {part:?}");
        }
    }
}
