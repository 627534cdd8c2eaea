//! Health checks.
//!
//! ```text
//!   targets ─▶ run ─▶ one task per server and check: schedule ─▶ probe ─┬▶ dampener ─▶ Event::Probed
//!                                                                        └▶ dampener ─▶ (another service)
//! ```
//!
//! The schedule and the dampener are pure; the probes do the IO.

pub mod dampener;
mod finding;
pub mod schedule;
mod watch;

use std::{collections::BTreeMap, panic::resume_unwind, sync::Arc, time::Duration};

use tokio::{
    sync::{
        mpsc,
        watch::{Receiver, Sender, channel},
    },
    task::{AbortHandle, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::{Event, ProbeResult, Target},
    limit::Limit,
    probe::Place,
};

/// Maximum number of concurrent probes. Each holds a socket, and half of the usual 1024 file descriptors must suffice. Probes
/// start late only if more than this are slow at once. Programs have a limit of their own. The connections that checks of
/// databases keep between two probes are not counted here: each server and different check holds a descriptor for one.
pub const PROBES_MAX: u32 = 512;

/// Watches the targets until shutdown, or until either channel is closed.
///
/// An unchanged target keeps its dampener. The known health of a target is used only when it is new. Targets with the same
/// address and check share a task, and its probes.
pub async fn run(
    mut targets: Receiver<Vec<Target>>,
    events: mpsc::Sender<Event>,
    shutdown: CancellationToken,
) {
    let mut watches = Watches::new(events);
    loop {
        let wanted = targets.borrow_and_update().clone();
        watches.adjust(wanted);
        tokio::select! {
            changed = targets.changed() => if changed.is_err() { return },
            () = watches.ended() => return,
            () = shutdown.cancelled() => return,
        }
    }
}

/// Probes once, immediately, outside any schedule.
pub async fn probe_once(target: &Target) -> ProbeResult {
    finding::probe(&mut target.check.probe.prober_of(&target.backend), target).await.into()
}

/// The running tasks. Dropping this ends them.
struct Watches {
    tasks: JoinSet<()>,
    by_place: BTreeMap<Place, Vec<Watch>>,
    limit: Arc<Limit>,
    events: mpsc::Sender<Event>,
}

/// A task, and the targets that share it.
struct Watch {
    targets: Sender<Vec<Target>>,
    task: AbortHandle,
}

impl Watches {
    fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            tasks: JoinSet::new(),
            by_place: BTreeMap::new(),
            limit: Arc::new(Limit::new("health checks", PROBES_MAX)),
            events,
        }
    }

    fn adjust(&mut self, wanted: Vec<Target>) {
        let mut before = std::mem::take(&mut self.by_place);
        let mut fresh = Vec::new();
        for sharers in by_watch(wanted) {
            let place = place(&sharers[0]);
            let found = before.get_mut(&place).and_then(|watches| {
                let at = watches.iter().position(|it| share(&it.targets.borrow()[0], &sharers[0]))?;
                Some(watches.swap_remove(at))
            });
            match found {
                Some(watch) => {
                    watch.targets.send_replace(sharers);
                    self.by_place.entry(place).or_default().push(watch);
                }
                None => fresh.push(sharers),
            }
        }
        before.into_values().flatten().for_each(|watch| watch.task.abort());

        let count = fresh.len();
        for (position, sharers) in fresh.into_iter().enumerate() {
            self.begin(sharers, schedule::first_start(position, count));
        }
    }

    fn begin(&mut self, sharers: Vec<Target>, first: Duration) {
        let target = sharers[0].clone();
        let place = place(&target);
        let limit = (!target.check.probe.has_own_limit()).then(|| self.limit.clone());
        let mut prober = target.check.probe.prober_of(&target.backend);
        let probe = async move |target: &Target| finding::probe(&mut prober, target).await;
        let (targets, shared) = channel(sharers);
        let task = watch::watch(target, shared, first, limit, probe, self.events.clone());
        let task = self.tasks.spawn(task);
        self.by_place.entry(place).or_default().push(Watch { targets, task });
    }

    /// Returns when the receiver of events is gone. Without tasks, waits forever.
    async fn ended(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(())) if self.events.is_closed() => return,
                // It was running when it was aborted, and found that its targets are gone.
                Some(Ok(())) => {}
                Some(Err(error)) => pass_on_panic(error),
                None => std::future::pending().await,
            }
        }
    }
}

/// The targets, together with those that one probe can serve, in their order.
fn by_watch(targets: Vec<Target>) -> Vec<Vec<Target>> {
    let mut groups: Vec<Vec<Target>> = Vec::new();
    let mut by_place: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    for target in targets {
        let at_place = by_place.entry(place(&target)).or_default();
        match at_place.iter().find(|group| share(&groups[**group][0], &target)) {
            Some(group) => groups[*group].push(target),
            None => {
                at_place.push(groups.len());
                groups.push(vec![target]);
            }
        }
    }
    groups
}

const fn place(target: &Target) -> Place {
    Place { address: target.address, source: target.source }
}

/// Can one probe serve both? Thresholds may differ.
fn share(one: &Target, other: &Target) -> bool {
    let (a, b) = (&one.check, &other.check);
    let is_same = place(one) == place(other)
        && a.probe == b.probe
        && a.interval == b.interval
        && a.timeout == b.timeout;
    is_same && (!a.probe.knows_names() || one.backend == other.backend)
}

/// A backend must not be left unchecked silently: a bug here ends the daemon (traffic continues). Aborted tasks are
/// normal.
fn pass_on_panic(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests;
