//! What is known of the role of one server.
//!
//! A server has a role when it has said so `rise` times in a row; the first answer decides while nothing is known. It
//! loses the primary role with the first answer that says otherwise: an answer is no guess. An answer that never came
//! says nothing: then the health decides.

use std::time::{Duration, Instant};

use super::lag::Lag;
use crate::{
    health::dampener::Thresholds,
    probe::{Role, RoleReport},
};

#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its last answer. `None`: none yet, or it is down.
    pub report: Option<RoleReport>,
    /// The role that counts.
    pub role: Option<Role>,
    /// Answers in a row that contradict it.
    against: u32,
    /// Replicas: does it get reads? `None`: not known yet.
    pub serves_reads: Option<bool>,
    /// Answers in a row that contradict it.
    against_reads: u32,
    lag: Lag,
    /// The last term that it named. A replica names none while it receives nothing.
    pub term: Option<u32>,
}

impl Observed {
    /// It was the primary, or served reads, before the daemon started.
    pub fn adopted(role: Role) -> Self {
        Self { role: Some(role), serves_reads: Some(role == Role::Replica), ..Self::default() }
    }

    /// It has answered.
    pub fn answered(&mut self, report: RoleReport, thresholds: Thresholds, now: Instant) {
        self.term = report.mark.term().or(self.term);
        self.lag.learn(&report, now);
        if self.role == Some(report.role) {
            self.against = 0;
        } else {
            self.against += 1;
            let is_lost = self.role == Some(Role::Primary);
            if self.role.is_none() || is_lost || self.against >= thresholds.rise {
                self.role = Some(report.role);
                self.against = 0;
            }
        }
        self.report = Some(report);
    }

    /// Did it say primary in its last answer?
    pub fn says_primary(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.role == Role::Primary)
    }

    /// Is it fit to serve reads, according to its last answer?
    pub fn judged(&mut self, is_fit: bool, thresholds: Thresholds) {
        if self.serves_reads == Some(is_fit) {
            self.against_reads = 0;
            return;
        }
        self.against_reads += 1;
        let needed = if is_fit { thresholds.rise } else { thresholds.fall };
        if self.serves_reads.is_none() || self.against_reads >= needed {
            self.serves_reads = Some(is_fit);
            self.against_reads = 0;
        }
    }

    /// It is down: what it said is out of date.
    pub fn went_down(&mut self) {
        *self = Self { lag: self.lag, term: self.term, ..Self::default() };
    }

    /// How old its data may be. `None`: unknown.
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        self.report.as_ref()?;
        self.lag.at(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Mark;

    /// Answers as `P` and `r`; the role after each as `P`, `r` and `.` (none).
    const CASES: &[(&str, &str, &str)] = &[
        ("the first answer decides", "P", "P"),
        ("the primary role is gained by two answers in a row", "rPrPrPP", "rrrrrrP"),
        ("and lost by one", "PPrPPr", "PPrrPr"),
        ("a server that says both in turn is a replica", "PrPrPrPr", "Prrrrrrr"),
    ];

    #[test]
    fn a_role_is_gained_slowly_and_the_primary_role_is_lost_at_once() {
        for (name, answers, expected) in CASES {
            let mut observed = Observed::default();
            let roles: String = answers
                .chars()
                .map(|letter| {
                    observed.answered(report(letter == 'P'), THRESHOLDS, Instant::now());
                    match observed.role {
                        Some(Role::Primary) => 'P',
                        Some(Role::Replica) => 'r',
                        None => '.',
                    }
                })
                .collect();

            assert_eq!(&roles, expected, "{name}");
        }
    }

    #[test]
    fn fitness_for_reads_is_dampened_both_ways() {
        let mut observed = Observed::default();
        let fits: String = "+--+---++"
            .chars()
            .map(|letter| {
                observed.judged(letter == '+', THRESHOLDS);
                if observed.serves_reads == Some(true) { '+' } else { '-' }
            })
            .collect();

        assert_eq!(fits, "++++++--+");
    }

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

    fn report(is_primary: bool) -> RoleReport {
        let role = if is_primary { Role::Primary } else { Role::Replica };
        let mark = Mark::Postgres { system: 7, timeline: Some(1), position: 0 };
        RoleReport { role, is_following: false, lag: None, mark }
    }
}
