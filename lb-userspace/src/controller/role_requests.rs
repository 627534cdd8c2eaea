//! Requests about the roles of database servers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use log::{info, warn};

use super::{
    Controller, Host,
    answer::milliseconds,
    roles::{Cluster, Fit, Outcome, ReadRefusal, Refusal, Roles, Vacancy},
    state::HealthState,
};
use crate::{
    datapath::Datapath,
    event::Health,
    probe::Role,
    problem::{Problem, ProblemKind},
    shared::Shared,
    spec::{Backend, BackendName, Service},
    view::{self, PrimaryState},
};

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn service_roles(&self, now: Instant) -> Vec<view::ServiceRole> {
        let services = self.state.spec().services.iter();
        services.filter_map(|service| self.service_role(service, now)).collect()
    }

    /// Ends the flows of the primary, and lets none begin until there is a newer primary.
    pub(super) fn fence(&mut self, name: &str, now: Instant) -> Result<view::ServiceRole, Problem> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let service = self.write_service(name)?;
        self.change_roles_now(&service, now, |roles| {
            if roles.fence(name, since) {
                warn!(service = name; "fenced: new flows are refused until there is a newer primary");
            }
        })
    }

    pub(super) fn unfence(&mut self, name: &str, now: Instant) -> Result<view::ServiceRole, Problem> {
        let service = self.write_service(name)?;
        self.change_roles_now(&service, now, |roles| {
            if roles.unfence(name) {
                info!(service = name; "the fence is ended by the operator");
            }
        })
    }

    /// Makes a backend that says primary the primary.
    pub(super) fn force(&mut self, name: &BackendName, now: Instant) -> Result<view::ServiceRole, Problem> {
        let service = self.write_service(&name.service)?;
        let (_, backend) = self.state.find(name).ok_or_else(|| self.no_backend(name))?;
        let address = backend.address;
        let says = self.state.roles().report(&name.service, address).map(|report| report.role);
        if says != Some(Role::Primary) {
            let says = match says {
                Some(_) => "it says replica: promote it first",
                None => "it has not said which role it has",
            };
            return Err(Problem::new(ProblemKind::Conflict, format!("{name} cannot be the primary: {says}")));
        }
        warn!(backend:% = name; "primary by choice of the operator");
        self.change_roles_now(&service, now, |roles| {
            roles.force(&name.service, address);
        })
    }

    /// The maps follow before the answer, and the disk.
    fn change_roles_now(
        &mut self,
        service: &Shared<Service>,
        now: Instant,
        act: impl FnOnce(&mut Roles),
    ) -> Result<view::ServiceRole, Problem> {
        self.state.change_roles(service, now, act);
        let failed = |error: anyhow::Error| Problem::new(ProblemKind::Failed, format!("{error:#}"));
        let applied = self.reconcile(now);
        self.tell_role_changes();
        let saved = self.save_roles();
        applied.map_err(failed)?;
        saved.map_err(failed)?;
        let gone = || Problem::new(ProblemKind::NotFound, format!("there is no service `{}`", service.name));
        self.service_role(service, now).ok_or_else(gone)
    }

    fn write_service(&self, name: &str) -> Result<Shared<Service>, Problem> {
        self.service(name)?;
        let services = &self.state.spec().services;
        let found = services.iter().find(|it| it.name == name && it.role.wanted == Some(Role::Primary));
        let conflict = || {
            let detail =
                format!("service {name} has no role = \"primary\", so it has no primary to fence or choose");
            Problem::new(ProblemKind::Conflict, detail)
        };
        found.cloned().ok_or_else(conflict)
    }

    pub(super) fn service_role(&self, service: &Service, now: Instant) -> Option<view::ServiceRole> {
        let role = service.role.wanted?;
        let roles = self.state.roles();
        let memory = roles.memory().service(&service.name);
        let named = |address| {
            let backend = service.backends.iter().find(|it| it.address == address);
            backend.map_or_else(|| address.to_string(), |it| it.name.clone())
        };
        let (state, since) = match roles.election(&service.name) {
            Some((outcome, since)) => (state_of(outcome), now.saturating_duration_since(since).as_secs()),
            None => (PrimaryState::Unknown, 0),
        };
        Some(view::ServiceRole {
            service: service.name.clone(),
            role,
            primary: roles.primary(&service.name).map(named),
            state,
            since_seconds: since,
            fenced: memory.fence.is_some(),
            forced: memory.forced.map(|forced| named(forced.address)),
            cluster: memory.cluster.map(|id| id.0.to_string()),
            term: roles.memory().term(memory.cluster),
            servers: service.backends.iter().map(|it| self.server_role(service, it, now)).collect(),
        })
    }

    fn server_role(&self, service: &Service, backend: &Backend, now: Instant) -> view::ServerRole {
        let roles = self.state.roles();
        let report = roles.report(&service.name, backend.address);
        let (lag, lag_bytes) = roles.lag(&service.name, backend.address, now);
        let fit = self.state.fit(service, backend);
        let serves = matches!(fit, Fit::Regular | Fit::Backup);
        view::ServerRole {
            name: backend.name.clone(),
            address: backend.address,
            health: self.state.health(service, backend).into(),
            role: roles.role(&service.name, backend.address),
            serves,
            is_backup: fit == Fit::Backup,
            reason: (!serves).then(|| self.reason(service, backend).to_owned()),
            mark: report.map(|report| report.mark.to_string()),
            lag_ms: lag.map(milliseconds),
            lag_bytes,
        }
    }

    /// Why a server gets no flows because of its role.
    pub(super) fn reason(&self, service: &Service, backend: &Backend) -> &'static str {
        let roles = self.state.roles();
        if self.state.health(service, backend) == Some(Health::Down) {
            return "down";
        }
        let Some(report) = roles.report(&service.name, backend.address) else { return "has not answered" };
        let name = BackendName::new(&service.name, &backend.name);
        if self.state.health_state(&name).is_some_and(HealthState::is_of_two_roles) {
            return TWO_ROLES;
        }
        let cluster = self.state.cluster(service);
        match (service.role.wanted, report.role) {
            (Some(Role::Primary) | None, Role::Replica) => "replica",
            (Some(Role::Primary) | None, Role::Primary) => self.not_elected(&cluster, backend),
            (Some(Role::Replica), Role::Primary) if backend.backup => self.not_elected(&cluster, backend),
            (Some(Role::Replica), Role::Replica | Role::Primary) => {
                let refused = roles.reads_refused(&cluster, backend.address, self.at);
                refused.map_or(NOT_STEADY, ReadRefusal::words)
            }
        }
    }

    /// Why a server that says primary is not the primary.
    fn not_elected(&self, cluster: &Cluster<'_>, backend: &Backend) -> &'static str {
        let roles = self.state.roles();
        match roles.refusal(cluster, backend.address) {
            Some(Refusal::OtherCluster) => "of another cluster",
            Some(Refusal::Outdated) => "outdated",
            Some(Refusal::Fenced) => "fenced",
            None if roles.is_steady(cluster.name, backend.address) => "not the only one",
            None => NOT_STEADY,
        }
    }
}

/// In `xlb health list`, too.
pub const TWO_ROLES: &str = "says primary and replica in turn";
/// The thresholds hold for roles, too.
const NOT_STEADY: &str = "not often enough in a row yet";

const fn state_of(outcome: &Outcome) -> PrimaryState {
    match outcome {
        Outcome::Elected(_) => PrimaryState::Elected,
        Outcome::Vacant(Vacancy::Unknown) => PrimaryState::Unknown,
        Outcome::Vacant(Vacancy::NoClaim) => PrimaryState::NoClaim,
        Outcome::Vacant(Vacancy::NotSteady) => PrimaryState::NotSteady,
        Outcome::Vacant(Vacancy::Refused) => PrimaryState::Refused,
        Outcome::Vacant(Vacancy::Fenced) => PrimaryState::Fenced,
        Outcome::Vacant(Vacancy::Contested(_)) => PrimaryState::Contested,
    }
}
