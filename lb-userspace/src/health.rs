//! Health checks.
//!
//! ```text
//!   targets ─▶ run ─▶ one task per backend: schedule ─▶ probe ─▶ dampener ─▶ Event::Probed
//! ```
//!
//! The schedule and the dampener are pure; the probes do the IO.

pub mod dampener;
mod finding;
pub mod schedule;
mod watch;

use std::{collections::BTreeMap, panic::resume_unwind, time::Duration};

use tokio::{
    sync::{mpsc, watch::Receiver},
    task::{AbortHandle, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::{Event, ProbeResult, Target},
    spec::BackendName,
};

/// Maximum number of concurrent probes. Each holds a socket, and half of the usual 1024 file descriptors must
/// suffice. Probes start late only if more backends than this are silent at once.
pub const PROBES_MAX: usize = 512;

/// Watches the targets until shutdown, or until either channel is closed.
///
/// An unchanged target keeps its task, and with it its dampener. The known health of a target is used only when its
/// task starts.
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
    finding::probe(&mut target.check.probe.prober(), target).await.into()
}

/// The running tasks. Dropping this ends them.
struct Watches {
    tasks: JoinSet<()>,
    by_name: BTreeMap<BackendName, (Target, AbortHandle)>,
    limit: watch::ProbeLimit,
    events: mpsc::Sender<Event>,
}

impl Watches {
    fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            tasks: JoinSet::new(),
            by_name: BTreeMap::new(),
            limit: watch::ProbeLimit::new(PROBES_MAX),
            events,
        }
    }

    fn adjust(&mut self, wanted: Vec<Target>) {
        let mut before = std::mem::take(&mut self.by_name);
        let mut fresh = Vec::new();
        for target in wanted {
            match before.remove(&target.backend) {
                Some((old, task)) if is_same_watch(&old, &target) => {
                    self.by_name.insert(target.backend, (old, task));
                }
                Some((_, task)) => {
                    task.abort();
                    fresh.push(target);
                }
                None => fresh.push(target),
            }
        }
        before.into_values().for_each(|(_, task)| task.abort());

        let count = fresh.len();
        for (position, target) in fresh.into_iter().enumerate() {
            self.begin(target, schedule::first_start(position, count));
        }
    }

    fn begin(&mut self, target: Target, first: Duration) {
        let mut prober = target.check.probe.prober();
        let probe = async move |target: &Target| finding::probe(&mut prober, target).await;
        let task = watch::watch(target.clone(), first, self.limit.clone(), probe, self.events.clone());
        self.by_name.insert(target.backend.clone(), (target, self.tasks.spawn(task)));
    }

    /// Returns when a task has ended by itself: the receiver of events is gone. Without tasks, waits forever.
    async fn ended(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(())) => return,
                Some(Err(error)) => pass_on_panic(error),
                None => std::future::pending().await,
            }
        }
    }
}

fn is_same_watch(old: &Target, new: &Target) -> bool {
    old.address == new.address && old.source == new.source && old.check == new.check
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
