//! Roles of backends: what the answers of their checks mean for the flows of their services.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{Scope, State};
use crate::{
    controller::roles::{Change, Cluster, Fit, Roles, Server},
    event::Health,
    health::dampener::Thresholds,
    probe::{Role, RoleReport},
    spec::{Backend, BackendName, Service},
};

impl State {
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The role of a backend, whether its service needs one or not. `None`: unknown.
    pub fn role(&self, service: &Service, backend: &Backend) -> Option<Role> {
        if service.role.wanted.is_some() {
            return self.roles.role(&service.name, backend.address);
        }
        self.said(service, backend).map(|report| report.role)
    }

    /// How old its data may be, unless it is down. `None`: unknown.
    pub fn lag(&self, service: &Service, backend: &Backend, now: Instant) -> Option<Duration> {
        if self.health(service, backend) != Some(Health::Up) {
            return None;
        }
        self.health_state(&BackendName::new(&service.name, &backend.name))?.lag.at(now)
    }

    fn said(&self, service: &Service, backend: &Backend) -> Option<&RoleReport> {
        let name = BackendName::new(&service.name, &backend.name);
        self.health_state(&name)?.last.as_ref()?.facts.role.as_ref()
    }

    /// Elections with another outcome since the last call.
    pub fn take_role_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.role_changes)
    }

    /// Backends that serve reads since the last call, or do not any more.
    pub fn take_read_changes(&mut self) -> BTreeSet<BackendName> {
        std::mem::take(&mut self.read_changes)
    }

    /// Must the maps follow at once?
    pub fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// The memory of roles has been saved.
    pub fn set_roles_saved(&mut self) {
        self.roles.set_saved();
    }

    /// Which flows a backend gets, as far as its role decides.
    pub fn fit(&self, service: &Service, backend: &Backend) -> Fit {
        self.roles.fit(&service.name, &service.role, backend.address, backend.backup)
    }

    /// Is it used only if no regular backend can serve?
    pub fn is_backup(&self, service: &Service, backend: &Backend) -> bool {
        match self.fit(service, backend) {
            Fit::Regular => false,
            Fit::Backup => true,
            Fit::Unfit | Fit::Unknown => backend.backup,
        }
    }

    /// Acts on the roles of a service, holds its election, and marks it if its backends get other flows. If the election
    /// changes, or a term rises, the other services follow.
    pub fn change_roles<T>(
        &mut self,
        service: &Service,
        now: Instant,
        act: impl FnOnce(&mut Roles) -> T,
    ) -> T {
        let before = self.fits(service);
        let terms = self.roles.memory().terms.clone();
        let outcome = act(&mut self.roles);
        let has_changed = self.elect(service, now) || self.roles.memory().terms != terms;
        self.mark_other_fits(service, &before);
        if has_changed {
            self.elect_all(now);
        }
        outcome
    }

    /// Holds the elections of all services.
    pub(super) fn elect_all(&mut self, now: Instant) {
        let spec = self.shared_spec();
        for service in spec.services.iter().filter(|it| it.role.wanted.is_some()) {
            let before = self.fits(service);
            self.elect(service, now);
            self.mark_other_fits(service, &before);
        }
    }

    fn elect(&mut self, service: &Service, now: Instant) -> bool {
        let cluster = self.cluster(service);
        let change = self.roles.elect(&cluster, now);
        let has_changed = change.is_some();
        self.role_changes.extend(change);
        has_changed
    }

    fn fits(&self, service: &Service) -> Vec<Fit> {
        service.backends.iter().map(|backend| self.fit(service, backend)).collect()
    }

    fn mark_other_fits(&mut self, service: &Service, before: &[Fit]) {
        let after = self.fits(service);
        if after == before {
            return;
        }
        self.is_urgent = true;
        self.set_dirty(Scope::Services([service.name.clone()].into()));
        if service.role.wanted == Some(Role::Replica) {
            let pairs = service.backends.iter().zip(before.iter().zip(after));
            let changed = pairs.filter(|(_, (before, after))| *before != after).map(|(backend, _)| backend);
            self.read_changes.extend(changed.map(|it| BackendName::new(&service.name, &it.name)));
        }
    }

    /// A backend has answered, or is down.
    pub(super) fn learn_role(&mut self, name: &BackendName, report: Option<RoleReport>, now: Instant) {
        let Some(place) = self.places.get(&name.service).copied() else { return };
        let spec = self.shared_spec();
        let service = &spec.services[place];
        if service.role.wanted.is_none() {
            return;
        }
        let Some(backend) = service.backends.iter().find(|it| it.name == name.backend) else { return };
        let (cluster, server) = (self.cluster(service), self.server(service, backend));
        self.change_roles(service, now, |roles| match report {
            Some(report) => roles.answered(&cluster, server, &report, now),
            None if server.health == Some(Health::Down) => roles.went_down(&cluster, server.address),
            None => {}
        });
    }

    /// Keeps what is known of servers that are still there, under the names that their services have.
    pub(super) fn keep_roles(&mut self, renamed: &[(String, String)], now: Instant) {
        self.roles.rename(renamed);
        let spec = self.shared_spec();
        let services = spec.services.iter().filter(|it| it.role.wanted.is_some());
        self.roles.retain(services.map(|it| (it.name.as_str(), it.backends.iter().map(|it| it.address))));
        // Which replicas are fit for reads depends on who is the primary.
        for wanted in [Role::Primary, Role::Replica] {
            self.recall_answers(wanted, now);
            self.elect_all(now);
        }
    }

    /// Servers of a service that had no role until now have said theirs already. So their flows need not wait for the next
    /// answers.
    fn recall_answers(&mut self, wanted: Role, now: Instant) {
        let spec = self.shared_spec();
        for service in spec.services.iter().filter(|it| it.role.wanted == Some(wanted)) {
            let cluster = self.cluster(service);
            for (backend, server) in service.backends.iter().zip(&cluster.servers) {
                let is_up = server.health == Some(Health::Up);
                if is_up
                    && self.roles.role(&service.name, backend.address).is_none()
                    && let Some(report) = self.said(service, backend).cloned()
                {
                    self.roles.answered(&cluster, *server, &report, now);
                }
            }
        }
    }

    /// A service as its elections see it.
    pub fn cluster<'s>(&self, service: &'s Service) -> Cluster<'s> {
        let thresholds = service.health.as_ref().map_or(Thresholds { rise: 1, fall: 1 }, |check| {
            Thresholds { rise: check.rise, fall: check.fall }
        });
        Cluster {
            name: &service.name,
            policy: service.role,
            thresholds,
            servers: service.backends.iter().map(|backend| self.server(service, backend)).collect(),
        }
    }

    fn server(&self, service: &Service, backend: &Backend) -> Server {
        Server { address: backend.address, is_backup: backend.backup, health: self.health(service, backend) }
    }
}
