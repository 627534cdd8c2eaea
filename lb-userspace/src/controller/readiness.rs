//! Which services are ready: a line in the log for each change, and the answer to `/readyz`.

use std::collections::{BTreeMap, BTreeSet};

use log::{info, warn};

use super::{
    Controller, Host, Trust,
    state::{Readiness, Scope, State},
};
use crate::{datapath::Datapath, spec::Service};

/// Whether each service was ready when it was last looked at. Without an entry, it was not ready because too little
/// was known about its backends.
#[derive(Debug, Default)]
pub struct LastReadiness(BTreeMap<String, bool>);

impl LastReadiness {
    /// At start: services that were served before it are ready already.
    pub fn of(state: &State) -> Self {
        let services = state.spec().services.iter();
        let ready = services.filter(|service| state.readiness(service).is_ready);
        Self(ready.map(|service| (service.name.clone(), true)).collect())
    }

    /// Looks at the services that have changed.
    pub fn update(&mut self, state: &State) {
        match state.dirty() {
            None => {}
            Some(Scope::Services(names)) => {
                state.services(names).into_iter().for_each(|service| self.look_at(service, state));
            }
            Some(Scope::All) => {
                let services = &state.spec().services;
                let names: BTreeSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
                self.0.retain(|name, _| names.contains(name.as_str()));
                services.iter().for_each(|service| self.look_at(service, state));
            }
        }
    }

    fn look_at(&mut self, service: &Service, state: &State) {
        let Readiness { available, is_ready } = state.readiness(service);
        let (name, quorum) = (&service.name, service.availability.quorum);
        let was_ready = self.0.get(name).copied();
        let is_known = is_ready || was_ready.is_some() || state.is_settled(service);
        if !is_known || was_ready == Some(is_ready) {
            return;
        }
        if is_ready {
            info!(service:% = name, available, quorum; "service is ready");
        } else {
            warn!(service:% = name, available, quorum; "service is not ready");
        }
        self.0.insert(name.clone(), is_ready);
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Why this node is not ready, one line each. None: all services have their quorum, and the data plane is up to date.
    pub(super) fn unready(&self) -> Vec<String> {
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
        let services = self.state.spec().services.iter();
        reasons.extend(services.filter_map(|service| {
            let Readiness { available, is_ready } = self.state.readiness(service);
            let quorum = service.availability.quorum;
            let name = &service.name;
            (!is_ready)
                .then(|| format!("service {name} is not ready: {available} available, quorum {quorum}"))
        }));
        reasons
    }
}
