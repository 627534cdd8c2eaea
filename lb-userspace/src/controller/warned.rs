//! Which warnings are logged, and when.

use std::time::{Duration, Instant};

use log::warn;

use super::{Controller, Host};
use crate::datapath::Datapath;

/// How long a problem must last before it is logged: neighbours take a moment to answer.
const SETTLED: Duration = Duration::from_secs(2);
/// Warnings are searched for at most this often because of changes to single services: with thousands of services that takes
/// a while.
const WARNINGS_INTERVAL: Duration = Duration::from_secs(1);

impl<D: Datapath, H: Host> Controller<D, H> {
    /// When a warning must be logged, or warnings must be searched for.
    pub(super) fn next_warning(&self) -> Option<Instant> {
        let pending = self.warned.values().filter(|(_, is_logged)| !is_logged);
        let search = self.warnings_outdated.then(|| self.warnings_searched + WARNINGS_INTERVAL);
        pending.map(|(since, _)| *since + SETTLED).chain(search).min()
    }

    pub(super) fn log_warnings(&mut self, now: Instant) {
        (self.warnings_searched, self.warnings_outdated) = (now, false);
        let former = std::mem::take(&mut self.warned);
        for warning in self.warnings() {
            let (since, is_logged) = former.get(&warning).copied().unwrap_or((now, false));
            let is_due = now.duration_since(since) >= SETTLED;
            if is_due && !is_logged {
                warn!("{warning}");
            }
            self.warned.insert(warning, (since, is_logged || is_due));
        }
    }
}
