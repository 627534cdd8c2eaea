//! Which services are ready: a line in the log for each change, and the answers to `/readyz`.
//!
//! A service is ready if enough of its backends are available, and the maps that say so have been read back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use log::{info, warn};

use super::{
    Controller, Host, Trust,
    state::{Readiness, Scope, State},
};
use crate::{datapath::Datapath, problem::Problem, spec::Service};

/// Maps are read back at most this often because services become ready.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// Whether a service is ready, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub is_ready: bool,
    pub since: Instant,
}

/// Whether each service was ready when it was last looked at.
#[derive(Debug)]
pub struct LastReadiness {
    /// Without an entry, a service was not ready because too little was known about its backends.
    ready: BTreeMap<String, Known>,
    /// Has each service been known once?
    has_settled: bool,
    /// Has `ready` changed since it was last asked for?
    has_changed: bool,
    /// Services that have their quorum in maps that were not read back yet.
    unconfirmed: BTreeSet<String>,
    /// When the maps may be read back for them.
    pub(super) next: Instant,
}

impl LastReadiness {
    pub const fn new(now: Instant) -> Self {
        Self {
            ready: BTreeMap::new(),
            has_settled: false,
            has_changed: true,
            unconfirmed: BTreeSet::new(),
            next: now,
        }
    }

    /// At start: services that were served before it are ready already.
    pub fn adopt(&mut self, state: &State, now: Instant) {
        let services = state.spec().services.iter();
        let ready = services.filter(|service| state.readiness(service).is_ready);
        let standing = Known { is_ready: true, since: now };
        self.ready = ready.map(|service| (service.name.clone(), standing)).collect();
        self.has_settled = self.ready.len() == state.spec().services.len();
    }

    pub fn is_ready(&self, service: &Service, state: &State) -> bool {
        self.ready.get(&service.name).is_some_and(|it| it.is_ready) && state.readiness(service).is_ready
    }

    /// The services that are known.
    pub fn known(&self) -> impl Iterator<Item = (&str, Known)> {
        self.ready.iter().map(|(name, standing)| (name.as_str(), *standing))
    }

    /// How many of these services are not known. 0 once all have been known: one that a reload adds does not count until then.
    pub fn unknown(&self, services: usize) -> usize {
        if self.has_settled { 0 } else { services.saturating_sub(self.ready.len()) }
    }

    /// Whether that may have changed since the last call.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.has_changed, false)
    }

    /// When the maps must be read back.
    pub fn due(&self) -> Option<Instant> {
        (!self.unconfirmed.is_empty()).then_some(self.next)
    }

    /// Looks at the services that have changed.
    pub fn update(&mut self, state: &State, now: Instant) {
        match state.dirty() {
            None => {}
            Some(Scope::Services(names)) => {
                state
                    .services(names)
                    .into_iter()
                    .for_each(|service| self.look_at(service, state, false, now));
            }
            Some(Scope::All) => {
                let services = &state.spec().services;
                let names: BTreeSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
                self.ready.retain(|name, _| names.contains(name.as_str()));
                services.iter().for_each(|service| self.look_at(service, state, false, now));
                // A reload may have removed the last one that was not known.
                self.has_settled |= self.ready.len() == services.len();
            }
        }
    }

    /// The maps were read back, and are as they should be.
    pub fn confirm(&mut self, state: &State, now: Instant) {
        self.next = now + CONFIRM_INTERVAL;
        for service in state.services(&std::mem::take(&mut self.unconfirmed)) {
            self.look_at(service, state, true, now);
        }
    }

    fn look_at(&mut self, service: &Service, state: &State, is_confirmed: bool, now: Instant) {
        let Readiness { available, is_ready } = state.readiness(service);
        let (name, quorum) = (&service.name, service.availability.quorum);
        let was_ready = self.ready.get(name).map(|it| it.is_ready);
        let is_known = is_ready || was_ready.is_some() || state.is_settled(service);
        self.unconfirmed.remove(name);
        if !is_known || was_ready == Some(is_ready) {
            return;
        }
        if !is_ready {
            warn!(service:% = name, available, quorum; "service is not ready");
        } else if is_confirmed {
            info!(service:% = name, available, quorum; "service is ready");
        } else {
            self.unconfirmed.insert(name.clone());
            return;
        }
        self.ready.insert(name.clone(), Known { is_ready, since: now });
        self.has_settled |= self.ready.len() == state.spec().services.len();
        self.has_changed = true;
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Why this node is not ready, one line each. None: all services are ready, and the data plane is up to date.
    pub(super) fn unready(&self) -> Vec<String> {
        let services = self.state.spec().services.iter();
        self.unready_node().into_iter().chain(services.filter_map(|it| self.unready_service(it))).collect()
    }

    /// Why one service is not ready.
    pub(super) fn unready_for(&self, service: &str) -> Result<Vec<String>, Problem> {
        let service = self.service(service)?;
        Ok(self.unready_node().into_iter().chain(self.unready_service(service)).collect())
    }

    fn unready_node(&self) -> Vec<String> {
        let interfaces = self.interfaces().into_iter().filter(|interface| !interface.attached);
        let mut reasons: Vec<String> = interfaces
            .map(|interface| format!("the program is not attached to {}", interface.name))
            .collect();
        if let Trust::Failed { error, .. } = &self.trust {
            reasons.push(format!("cannot update the maps: {error}"));
        }
        if let Some(failure) = &self.host_failure {
            reasons.push(format!("cannot restore interfaces and pins: {failure}"));
        }
        reasons
    }

    fn unready_service(&self, service: &Service) -> Option<String> {
        let Readiness { available, is_ready } = self.state.readiness(service);
        let (name, quorum) = (&service.name, service.availability.quorum);
        if self.readiness.is_ready(service, &self.state) {
            return None;
        }
        Some(match is_ready {
            true => format!("service {name} is not ready: its maps have not been read back yet"),
            false => format!("service {name} is not ready: {available} available, quorum {quorum}"),
        })
    }
}
