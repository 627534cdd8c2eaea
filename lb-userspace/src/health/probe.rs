//! One probe of one backend: what it found, in words that an operator understands.
//!
//! The answering side is not trusted: everything that it can make long or large has a limit, and one timeout covers
//! everything from the first SYN to the byte that decides.

mod connect;
mod http;
mod tcp;

use std::{
    io,
    time::{Duration, SystemTime},
};

use nix::errno::Errno;
use tokio::time::Instant;

use crate::{
    event::{ProbeOutcome, ProbeResult, Target},
    spec::Probe,
};

/// Why a probe found no healthy backend.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answered, but not as it should.
    Failed(String),
    /// It did not answer in time.
    Silent,
    /// This host could not even ask (no more sockets or memory): that says nothing about the backend.
    NotAsked(String),
}

/// What one probe found, and when.
#[derive(Debug)]
pub struct Finding {
    pub answer: Result<String, Fault>,
    pub duration: Duration,
    pub at: SystemTime,
    pub timeout: Duration,
}

/// Probes the target once. Its timeout bounds the time to a verdict.
pub async fn probe(target: &Target) -> Finding {
    let at = SystemTime::now();
    let started = Instant::now();
    let limit = target.check.timeout;
    let answer = match &target.check.probe {
        Probe::Tcp => tcp::probe(target.address, target.source, limit).await,
        Probe::Http { path, host } => {
            http::probe(target.address, target.source, path, host.as_deref(), limit).await
        }
    };
    Finding { answer, duration: started.elapsed(), at, timeout: limit }
}

impl From<Finding> for ProbeResult {
    fn from(finding: Finding) -> Self {
        let (outcome, detail) = match finding.answer {
            Ok(detail) => (ProbeOutcome::Success, detail),
            Err(Fault::Failed(detail)) => (ProbeOutcome::Failure, detail),
            Err(Fault::Silent) => (ProbeOutcome::Timeout, format!("no answer within {:?}", finding.timeout)),
            Err(Fault::NotAsked(why)) => (ProbeOutcome::Failure, format!("not probed: {why} (on this host)")),
        };
        Self { outcome, detail, duration: finding.duration, at: finding.at }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) = errno {
            return Self::NotAsked(plain(&error));
        }
        // The kernel's own patience ended before ours.
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Silent;
        }
        Self::Failed(plain(&error))
    }
}

/// "connection refused", not "Connection refused (os error 111)".
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
