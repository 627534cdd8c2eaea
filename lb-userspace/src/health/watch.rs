//! The watch of one server: its schedule, its sequential probes, and for each backend that it is, a dampener and events.
//!
//! A server may be a backend of several services. If they check it in the same way, one probe serves them all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch::Receiver},
    time::{Instant, sleep_until},
};

use super::{
    dampener::{Dampener, Thresholds},
    finding::Finding,
    schedule::Schedule,
};
use crate::{
    event::{Event, Health, ProbeResult, Probed, Target},
    limit::Limit,
    probe::Fault,
    spec::BackendName,
};

/// Watches `target` for the targets in `sharers`, which all have its address and its check, until the receiver of `events`
/// is gone (or the future is dropped). The first probe starts after `first`. A target that joins later gets the last
/// result at once. `limit`: of concurrent probes over all backends; `None`: the probe limits itself.
pub async fn watch<P>(
    target: Target,
    mut sharers: Receiver<Vec<Target>>,
    first: Duration,
    limit: Option<Arc<Limit>>,
    mut probe: P,
    events: mpsc::Sender<Event>,
) where
    P: AsyncFnMut(&Target) -> Finding,
{
    let started = Instant::now();
    let mut schedule = Schedule::new(&target.backend, first, target.check.interval);
    let mut audience = Audience { dampeners: BTreeMap::new(), events };
    let mut doubt = Doubt::default();
    let mut last: Option<(Option<Health>, ProbeResult)> = None;
    let mut due = started + schedule.next(started.elapsed());
    loop {
        let joined = audience.adjust(&sharers.borrow_and_update());
        if let Some((seen, result)) = &last
            && audience.tell(&joined, *seen, result).await.is_err()
        {
            return;
        }
        tokio::select! {
            biased;
            changed = sharers.changed() => if changed.is_err() { return } else { continue },
            () = sleep_until(due) => {}
        }
        let turn = match &limit {
            Some(limit) => Some(limit.take().await),
            None => None,
        };
        let finding = probe(&target).await;
        drop(turn);
        // Those that joined during the probe get its result, too.
        audience.adjust(&sharers.borrow_and_update());
        let all: Vec<_> = audience.dampeners.keys().cloned().collect();
        doubt.learn(&all, &finding);
        let (seen, result) = (judge(&finding), ProbeResult::from(finding));
        if audience.tell(&all, seen, &result).await.is_err() {
            return;
        }
        last = Some((seen, result));
        due = started + schedule.next(started.elapsed());
    }
}

/// The backends that a probe is about.
struct Audience {
    dampeners: BTreeMap<BackendName, (Target, Dampener)>,
    events: mpsc::Sender<Event>,
}

/// The receiver of events is gone.
struct Gone;

impl Audience {
    /// Keeps the dampeners of targets that stay as they are. Returns the others.
    fn adjust(&mut self, wanted: &[Target]) -> Vec<BackendName> {
        let mut before = std::mem::take(&mut self.dampeners);
        let mut joined = Vec::new();
        for target in wanted {
            let name = &target.backend;
            let kept = before.remove(name).filter(|(old, _)| old.check == target.check);
            let watched = kept.unwrap_or_else(|| {
                joined.push(name.clone());
                let thresholds = Thresholds { rise: target.check.rise, fall: target.check.fall };
                (target.clone(), Dampener::new(thresholds, target.known))
            });
            self.dampeners.insert(name.clone(), watched);
        }
        joined
    }

    async fn tell(
        &mut self,
        names: &[BackendName],
        seen: Option<Health>,
        result: &ProbeResult,
    ) -> Result<(), Gone> {
        for name in names {
            let Some((target, dampener)) = self.dampeners.get_mut(name) else { continue };
            let change = seen.and_then(|seen| dampener.observe(seen));
            let (backend, address) = (name.clone(), target.address);
            let probed = Probed { backend, address, change, result: result.clone() };
            self.events.send(Event::Probed(probed)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// The health according to a result, if the result says anything about it.
const fn judge(finding: &Finding) -> Option<Health> {
    match &finding.answer {
        Ok(_) => Some(Health::Up),
        Err(Fault::Failed(_) | Fault::Reported(_) | Fault::Silent) => Some(Health::Down),
        Err(Fault::Undecided(_)) => None,
    }
}

/// Why the last probe decided nothing, if that is so. It is logged when it begins, changes and ends.
#[derive(Default)]
struct Doubt(Option<String>);

impl Doubt {
    fn learn(&mut self, backends: &[BackendName], finding: &Finding) {
        let names = || backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &finding.answer {
            Err(Fault::Undecided(why)) if self.0.as_ref() != Some(why) => {
                log::warn!(backend = names(), probe = why; "health check decides nothing: the health stays as it is");
                self.0 = Some(why.clone());
            }
            Err(Fault::Undecided(_)) => {}
            Ok(_) | Err(Fault::Failed(_) | Fault::Reported(_) | Fault::Silent) => {
                if self.0.take().is_some() {
                    log::info!(backend = names(); "health check decides again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
