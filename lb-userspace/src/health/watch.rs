//! The watch of one backend: its schedule, its sequential probes, its dampener, and its events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    dampener::{Dampener, Thresholds},
    finding::Finding,
    schedule::Schedule,
};
use crate::{
    event::{Event, Health, Probed, Target},
    probe::Fault,
};

/// Watches until the receiver of `events` is gone (or the future is dropped). The first probe starts after `first`.
pub async fn watch<P>(
    target: Target,
    first: Duration,
    limit: ProbeLimit,
    mut probe: P,
    events: mpsc::Sender<Event>,
) where
    P: AsyncFnMut(&Target) -> Finding,
{
    let started = Instant::now();
    let mut schedule = Schedule::new(&target.backend, first, target.check.interval);
    let thresholds = Thresholds { rise: target.check.rise, fall: target.check.fall };
    let mut dampener = Dampener::new(thresholds, target.known);
    let mut doubt = Doubt::default();
    loop {
        sleep_until(started + schedule.next(started.elapsed())).await;
        let finding = limit.run(probe(&target)).await;
        doubt.learn(&target, &finding);
        let change = judge(&finding).and_then(|seen| dampener.observe(seen));
        let (backend, address) = (target.backend.clone(), target.address);
        let probed = Probed { backend, address, change, result: finding.into() };
        if events.send(Event::Probed(probed)).await.is_err() {
            return;
        }
    }
}

/// The health according to a result, if the result says anything about it.
const fn judge(finding: &Finding) -> Option<Health> {
    match &finding.answer {
        Ok(_) => Some(Health::Up),
        Err(Fault::Failed(_) | Fault::Silent) => Some(Health::Down),
        Err(Fault::Undecided(_)) => None,
    }
}

/// Why the last probe decided nothing, if that is so. It is logged when it begins, changes and ends.
#[derive(Default)]
struct Doubt(Option<String>);

impl Doubt {
    fn learn(&mut self, target: &Target, finding: &Finding) {
        let backend = &target.backend;
        match &finding.answer {
            Err(Fault::Undecided(why)) if self.0.as_ref() != Some(why) => {
                log::warn!(backend:%, probe = why; "health check decides nothing: the health stays as it is");
                self.0 = Some(why.clone());
            }
            Err(Fault::Undecided(_)) => {}
            Ok(_) | Err(Fault::Failed(_) | Fault::Silent) if self.0.take().is_some() => {
                log::info!(backend:%; "health check decides again");
            }
            Ok(_) | Err(Fault::Failed(_) | Fault::Silent) => {}
        }
    }
}

/// The limit of concurrent probes over all backends.
#[derive(Clone, Debug)]
pub struct ProbeLimit {
    permits: Arc<Semaphore>,
    /// It was reached, and this was logged.
    reached: Arc<AtomicBool>,
}

impl ProbeLimit {
    pub fn new(count: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(count)), reached: Arc::new(AtomicBool::new(false)) }
    }

    /// Runs the probe when the limit allows it.
    async fn run(&self, probe: impl Future<Output = Finding>) -> Finding {
        let _permit = match self.permits.try_acquire() {
            Ok(permit) => {
                self.reached.store(false, Ordering::Relaxed);
                Some(permit)
            }
            Err(_) => {
                if !self.reached.swap(true, Ordering::Relaxed) {
                    log::warn!("too many health checks at once: some start late; raise the intervals");
                }
                // Only a closed semaphore is an error, and this one is never closed.
                self.permits.acquire().await.ok()
            }
        };
        probe.await
    }
}

#[cfg(test)]
mod tests;
