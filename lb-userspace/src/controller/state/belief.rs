//! What is believed of one backend, and what the probes have said.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::event::{Health, ProbeOutcome, ProbeResult, Probed};

#[derive(Clone, Debug)]
pub struct Belief {
    /// `None`: not known yet.
    pub health: Option<Health>,
    /// When it was learnt.
    pub since: Instant,
    /// How often it changed between up and down.
    pub changes: u64,
    pub last: Option<ProbeResult>,
    pub checks: BTreeMap<ProbeOutcome, u64>,
    pub durations: Durations,
}

impl Belief {
    pub fn new(now: Instant) -> Self {
        Self {
            health: None,
            since: now,
            changes: 0,
            last: None,
            checks: BTreeMap::new(),
            durations: Durations::default(),
        }
    }

    /// Takes in a result. Returns whether the health changed.
    pub fn learn(&mut self, probed: Probed, now: Instant) -> bool {
        *self.checks.entry(probed.result.outcome).or_default() += 1;
        self.durations.add(probed.result.duration);
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

/// How long probes took: a histogram, as Prometheus counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Those no longer than the bound of the same place, and longer than the one before.
    pub counts: [u64; Self::BOUNDS.len()],
    /// All of them, those above the last bound included.
    pub count: u64,
    pub sum: Duration,
}

impl Durations {
    /// In seconds: from a backend on the same switch to the usual timeouts.
    pub const BOUNDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

    pub fn add(&mut self, duration: Duration) {
        let place = Self::BOUNDS.iter().position(|bound| duration.as_secs_f64() <= *bound);
        if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += duration;
    }
}
