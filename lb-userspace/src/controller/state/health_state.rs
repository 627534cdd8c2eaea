//! The health of one backend, and the results of its probes.

use std::time::Instant;

use crate::{
    event::{Health, ProbeResult, Probed},
    metrics::Checks,
};

#[derive(Clone, Debug)]
pub struct HealthState {
    /// `None`: unknown yet.
    pub health: Option<Health>,
    /// When the health became known.
    pub since: Instant,
    /// How often it changed between up and down.
    pub changes: u64,
    pub last: Option<ProbeResult>,
    pub checks: Checks,
}

impl HealthState {
    /// Keeps the health of this backend, and the counts of its name.
    pub fn of(seen: Option<&Self>, counted: Option<&Self>, now: Instant) -> Self {
        Self {
            health: seen.and_then(|it| it.health),
            since: seen.map_or(now, |it| it.since),
            changes: counted.map(|it| it.changes).unwrap_or_default(),
            last: seen.and_then(|it| it.last.clone()),
            checks: counted.map(|it| it.checks.clone()).unwrap_or_default(),
        }
    }

    /// Records a result. Returns whether the health changed.
    pub fn learn(&mut self, probed: Probed, now: Instant) -> bool {
        *self.checks.results.entry(probed.result.outcome).or_default() += 1;
        self.checks.durations.observe(probed.result.duration);
        self.last = Some(probed.result);
        if probed.change.is_none() || probed.change == self.health {
            return false;
        }
        self.changes += u64::from(self.health.is_some());
        self.health = probed.change;
        self.since = now;
        true
    }
}
