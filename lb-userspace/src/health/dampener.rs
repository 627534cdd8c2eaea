//! Turns single results into a steady health: `rise` successes in a row bring a backend up, `fall` failures in a row
//! bring it down.

use crate::event::Health;

/// The health of one backend, and the recent results that contradict it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dampener {
    thresholds: Thresholds,
    steady: Option<Health>,
    /// Results in a row that contradict `steady`.
    against: u32,
}

/// How many results in a row change the health. 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub rise: u32,
    pub fall: u32,
}

impl Dampener {
    /// If the health is unknown, the first result decides: clients must not wait for `rise` probes. If it is
    /// known (adopted from the maps), it stays until a threshold is reached.
    pub fn new(thresholds: Thresholds, known: Option<Health>) -> Self {
        Self { thresholds, steady: known, against: 0 }
    }

    /// Returns the new health if this result changed it.
    pub fn observe(&mut self, seen: Health) -> Option<Health> {
        if self.steady == Some(seen) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.steady.is_some() && self.against < self.thresholds.needed(seen) {
            return None;
        }
        self.steady = Some(seen);
        self.against = 0;
        Some(seen)
    }
}

impl Thresholds {
    fn needed(self, seen: Health) -> u32 {
        match seen {
            Health::Up => self.rise,
            Health::Down => self.fall,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Results as `+` and `-`; what each returns as `U` (now up), `D` (now down) and `.` (nothing).
    const CASES: &[(&str, Option<Health>, &str, &str)] = &[
        ("cold, first good", None, "+", "U"),
        ("cold, first bad", None, "-", "D"),
        ("cold, then the thresholds hold", None, "+--+---++", "U.....D.U"),
        ("adopted up, stays up", Some(Health::Up), "+++", "..."),
        ("adopted up, one bad result is not enough", Some(Health::Up), "-+--+---", ".......D"),
        ("adopted down, one good result is not enough", Some(Health::Down), "+-+-++", ".....U"),
        ("adopted down, stays down", Some(Health::Down), "---", "..."),
    ];

    #[test]
    fn every_case_has_the_expected_result() {
        for (name, known, results, expected) in CASES {
            let mut dampener = Dampener::new(Thresholds { rise: 2, fall: 3 }, *known);

            let seen: String = results.chars().map(|c| letter(dampener.observe(health(c == '+')))).collect();

            assert_eq!(&seen, expected, "{name}");
        }
    }

    #[test]
    fn a_threshold_of_zero_counts_as_one() {
        let mut dampener = Dampener::new(Thresholds { rise: 0, fall: 0 }, Some(Health::Up));

        assert_eq!(dampener.observe(Health::Down), Some(Health::Down));
        assert_eq!(dampener.observe(Health::Up), Some(Health::Up));
    }

    proptest! {
        #[test]
        fn health_changes_exactly_when_enough_results_in_a_row_contradict_it(
            (rise, fall) in (1u32..6, 1u32..6),
            known in proptest::option::of(any::<bool>()),
            results in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut dampener = Dampener::new(Thresholds { rise, fall }, known.map(health));
            let mut steady = known;
            let mut since_change = 0;

            for (index, &good) in results.iter().enumerate() {
                let change = dampener.observe(health(good));

                since_change += 1;
                let needed = if good { rise } else { fall } as usize;
                let in_a_row = results[..=index].iter().rev().take(since_change).take_while(|r| **r == good).count();
                let expected = steady.is_none() || (steady != Some(good) && in_a_row >= needed);
                prop_assert_eq!(change, expected.then(|| health(good)));
                if expected {
                    steady = Some(good);
                    since_change = 0;
                }
            }
        }
    }

    fn health(good: bool) -> Health {
        if good { Health::Up } else { Health::Down }
    }

    fn letter(change: Option<Health>) -> char {
        match change {
            Some(Health::Up) => 'U',
            Some(Health::Down) => 'D',
            None => '.',
        }
    }
}
