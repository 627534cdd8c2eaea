//! Which backends the program has ejected: a line in the log for each change.
//!
//! The program ejects backends, and ends ejections, without the controller. So the controller looks once a second.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lb_common::backend::{Backend, BackendId};
use log::{info, warn};

use super::{Controller, Host};
use crate::{datapath::Datapath, spec::BackendName};

const INTERVAL: Duration = Duration::from_secs(1);

/// What was seen when the controller last looked.
#[derive(Debug)]
pub struct Ejections {
    ejected: BTreeSet<BackendId>,
    due: Instant,
}

impl Ejections {
    pub const fn new(now: Instant) -> Self {
        Self { ejected: BTreeSet::new(), due: now }
    }

    /// When to look.
    pub const fn due(&self) -> Instant {
        self.due
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn look_at_ejections_if_due(&mut self, now: Instant) {
        if now < self.ejections.due {
            return;
        }
        self.ejections.due = now + INTERVAL;
        let all = self.have.backends.values().map(|backend| backend.id);
        let ejected: BTreeSet<BackendId> = all.filter(|id| self.datapath.is_ejected(*id)).collect();
        for id in ejected.difference(&self.ejections.ejected) {
            if let Some(name) = self.name_of(*id) {
                warn!(backend:% = name; "backend is ejected: it refused or did not answer its last new flows");
            }
        }
        for id in self.ejections.ejected.difference(&ejected) {
            if let Some(name) = self.name_of(*id) {
                info!(backend:% = name; "backend is no longer ejected");
            }
        }
        self.ejections.ejected = ejected;
    }

    /// A successful health check ends the ejection of a backend.
    pub(super) fn readmit(&mut self, name: &BackendName) {
        let id = self.have.backend_named(name).map(|backend| backend.id);
        if let Some(id) = id.filter(|id| self.datapath.is_ejected(*id)) {
            self.datapath.readmit(id);
            self.ejections.ejected.remove(&id);
            info!(backend:% = name; "backend is no longer ejected: its health check succeeded");
        }
    }

    /// `None`: it was removed.
    fn name_of(&self, id: BackendId) -> Option<&BackendName> {
        let Backend { counters, .. } = self.have.backend(id)?;
        self.have.backend_names.get(counters)
    }
}
