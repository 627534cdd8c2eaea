//! The result of one probe of a target.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    duration,
    event::{ProbeResult, Target},
    probe::{Answer, Facts, Fault, Place, ProbeOutcome, Prober},
};

/// The result of a probe, and its time.
#[derive(Debug)]
pub struct Finding {
    pub answer: Result<Answer, Fault>,
    /// Until the result was certain.
    pub duration: Duration,
    pub at: SystemTime,
    pub timeout: Duration,
}

/// Probes the target once. The result comes within its timeout. That of a program comes within twice that time: the timeout
/// begins again when the program may run.
pub async fn probe(prober: &mut Prober, target: &Target) -> Finding {
    let at = SystemTime::now();
    let started = Instant::now();
    let limit = target.check.timeout;
    let place = Place { address: target.address, source: target.source };
    let verdict = prober.run(place, limit).await;
    Finding { answer: verdict.answer, duration: verdict.at - started, at, timeout: limit }
}

impl From<Finding> for ProbeResult {
    fn from(finding: Finding) -> Self {
        let mut facts = Facts::default();
        let (outcome, detail) = match finding.answer {
            Ok(answer) => {
                facts = answer.facts;
                (ProbeOutcome::Success, answer.text)
            }
            Err(Fault::Failed(detail)) => (ProbeOutcome::Failure, detail),
            Err(Fault::Reported(answer)) => {
                facts = answer.facts;
                (ProbeOutcome::Failure, answer.text)
            }
            Err(Fault::Silent) => {
                (ProbeOutcome::Timeout, format!("no answer within {}", duration::show(finding.timeout)))
            }
            Err(Fault::Undecided(why)) => (ProbeOutcome::Undecided, why),
        };
        Self { outcome, detail, facts, duration: finding.duration, at: finding.at }
    }
}

#[cfg(test)]
mod tests;
