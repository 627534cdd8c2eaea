//! What is believed of one backend, and what the probes have said.

use std::time::Instant;

use crate::{
    event::{Health, ProbeResult, Probed},
    metrics::Checks,
};

#[derive(Clone, Debug)]
pub struct Belief {
    /// `None`: not known yet.
    pub health: Option<Health>,
    /// When it was learnt.
    pub since: Instant,
    /// How often it changed between up and down.
    pub changes: u64,
    pub last: Option<ProbeResult>,
    pub checks: Checks,
}

impl Belief {
    pub fn new(now: Instant) -> Self {
        Self { health: None, since: now, changes: 0, last: None, checks: Checks::default() }
    }

    /// Takes in a result. Returns whether the health changed.
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

    /// It lives elsewhere now: what was seen says nothing.
    pub fn forget(&mut self, now: Instant) {
        self.health = None;
        self.since = now;
        self.last = None;
    }
}
