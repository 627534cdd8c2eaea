//! The result of one probe of a target.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    duration,
    event::{ProbeResult, Target},
    probe::{Fault, ProbeOutcome},
};

/// The result of a probe, and its time.
#[derive(Debug)]
pub struct Finding {
    pub answer: Result<String, Fault>,
    /// Until the result was certain.
    pub duration: Duration,
    pub at: SystemTime,
    pub timeout: Duration,
}

/// Probes the target once. The result comes within its timeout.
pub async fn probe(target: &Target) -> Finding {
    let at = SystemTime::now();
    let started = Instant::now();
    let limit = target.check.timeout;
    let verdict = target.check.probe.run(target.address, target.source, limit).await;
    Finding { answer: verdict.answer, duration: verdict.at - started, at, timeout: limit }
}

impl From<Finding> for ProbeResult {
    fn from(finding: Finding) -> Self {
        let (outcome, detail) = match finding.answer {
            Ok(detail) => (ProbeOutcome::Success, detail),
            Err(Fault::Failed(detail)) => (ProbeOutcome::Failure, detail),
            Err(Fault::Silent) => {
                (ProbeOutcome::Timeout, format!("no answer within {}", duration::show(finding.timeout)))
            }
            Err(Fault::Local(why)) => (ProbeOutcome::Failure, format!("not probed, local error: {why}")),
        };
        Self { outcome, detail, duration: finding.duration, at: finding.at }
    }
}

#[cfg(test)]
mod tests;
