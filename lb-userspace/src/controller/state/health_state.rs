//! The health of one backend, and the results of its probes.

use std::time::{Duration, Instant, SystemTime};

use super::Agent;
use crate::{
    controller::roles::Lag,
    event::{Health, ProbeResult, Probed},
    metrics::Checks,
    probe::{ProbeOutcome, Role},
};

/// The operator is warned when a certificate has no more than this left.
const SHORT_LIFE: Duration = Duration::from_hours(14 * 24);

/// A server that is promoted or demoted changes its role once, or twice if that fails.
const ROLE_TURNS: u32 = 3;

#[derive(Clone, Debug)]
pub struct HealthState {
    /// `None`: not known yet.
    pub health: Option<Health>,
    /// When the health became known.
    pub since: Instant,
    pub agent: Agent,
    pub last: Option<ProbeResult>,
    /// When the first certificate of its chain ends, if a probe has seen one.
    pub certificate_ends: Option<SystemTime>,
    /// Of a database server.
    pub lag: Lag,
    /// Answers in a row that named another role than the one before.
    role_turns: u32,
    last_role: Option<Role>,
    /// Probes in a row that decided nothing.
    pub undecided: u32,
    pub counts: HealthCounts,
}

/// What was counted under one name. It never decreases while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthCounts {
    /// How often the backend changed between up and down.
    pub changes: u64,
    pub checks: Checks,
}

impl HealthState {
    /// Keeps the health of this backend, and the counts of its name.
    pub fn of(seen: Option<&Self>, counts: HealthCounts, now: Instant) -> Self {
        Self {
            health: seen.and_then(|it| it.health),
            since: seen.map_or(now, |it| it.since),
            agent: seen.map(|it| it.agent).unwrap_or_default(),
            last: seen.and_then(|it| it.last.clone()),
            certificate_ends: seen.and_then(|it| it.certificate_ends),
            lag: seen.map(|it| it.lag).unwrap_or_default(),
            role_turns: seen.map_or(0, |it| it.role_turns),
            last_role: seen.and_then(|it| it.last_role),
            undecided: seen.map_or(0, |it| it.undecided),
            counts,
        }
    }

    /// The rest of the certificate's life at the last probe, if it is short. Zero: it has ended.
    pub fn certificate_left(&self) -> Option<Duration> {
        let (ends, last) = (self.certificate_ends?, self.last.as_ref()?);
        let left = ends.duration_since(last.at).unwrap_or_default();
        (left <= SHORT_LIFE).then_some(left)
    }

    /// Does it say primary and replica in turn?
    pub fn is_of_two_roles(&self) -> bool {
        self.role_turns >= ROLE_TURNS
    }

    /// Records a result. Returns whether the health changed.
    pub fn learn(&mut self, probed: Probed, now: Instant) -> bool {
        *self.counts.checks.results.entry(probed.result.outcome).or_default() += 1;
        self.counts.checks.durations.observe(probed.result.duration);
        if probed.result.outcome == ProbeOutcome::Success {
            // A check without TLS sees none.
            self.certificate_ends = probed.result.facts.certificate_ends;
        }
        self.agent = match &probed.result.facts.agent {
            Some(report) => self.agent.after(report),
            // A check of another type.
            None if probed.result.outcome == ProbeOutcome::Success => Agent::default(),
            None => self.agent,
        };
        if let Some(report) = &probed.result.facts.role {
            self.lag.learn(report, now);
            let before = self.last_role.replace(report.role);
            self.role_turns = if before.is_some_and(|it| it != report.role) {
                self.role_turns.saturating_add(1)
            } else {
                0
            };
        }
        self.undecided = match probed.result.outcome {
            ProbeOutcome::Undecided => self.undecided.saturating_add(1),
            ProbeOutcome::Success | ProbeOutcome::Failure | ProbeOutcome::Timeout => 0,
        };
        self.last = Some(probed.result);
        if probed.change.is_none() || probed.change == self.health {
            return false;
        }
        self.counts.changes += u64::from(self.health.is_some());
        self.health = probed.change;
        self.since = now;
        true
    }
}
