//! Changes of roles: a line in the log for each, and the memory on disk.

use std::{net::SocketAddr, time::Instant};

use log::{error, info, warn};

use super::{
    Controller, Host,
    roles::{Change, Fit, Outcome, Vacancy},
};
use crate::{datapath::Datapath, named::Named, probe::Role, spec::BackendName};

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Logs the elections of services for writes with another outcome. Services for reads only follow.
    pub(super) fn tell_role_changes(&mut self) {
        for change in self.state.take_role_changes() {
            let wanted = self.state.service(&change.service).and_then(|service| service.role.wanted);
            if wanted == Some(Role::Primary) {
                self.tell(&change);
            }
        }
        for name in self.state.take_read_changes() {
            self.tell_of_reads(&name);
        }
    }

    /// What happens because a server is down, is said with its health.
    fn tell_of_reads(&self, name: &BackendName) {
        let Some((service, backend)) = self.state.find(name) else { return };
        let role = self.state.role(service, backend).map_or("unknown", Named::name);
        match self.state.fit(service, backend) {
            Fit::Regular => info!(backend:% = name, role; "backend serves reads"),
            Fit::Backup => info!(backend:% = name, role; "backend serves reads if no replica can"),
            Fit::Unfit => {
                let lag = self.state.roles().lag(&service.name, backend.address, self.at).0;
                let lag_ms = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.as_millis().to_string());
                let why = self.reason(service, backend);
                warn!(backend:% = name, role, why, lag_ms; "backend serves no reads");
            }
            Fit::Unknown => {}
        }
    }

    fn tell(&self, change: &Change) {
        let service = &change.service;
        let before = self.outcome_name(service, &change.before);
        let after = self.outcome_name(service, &change.after);
        match &change.after {
            Outcome::Elected(_) => {
                let from =
                    change.last.as_ref().map_or(before, |last| self.server_name(service, last.address));
                let from_mark = change.last.as_ref().map_or_else(no_mark, ToString::to_string);
                let to_mark = change.mark.as_ref().map_or_else(no_mark, ToString::to_string);
                let refused_ms = change.vacant.map_or(0, |vacant| vacant.as_millis());
                info!(service:%, from, from_mark, to = after, to_mark, refused_ms; "the primary has changed");
            }
            Outcome::Vacant(Vacancy::Contested(_)) => {
                error!(
                    service:%, from = before, servers = after;
                    "several servers say primary, and none is newer: none of them gets flows until one is left, or you \
                     choose one with `xlb role force`"
                );
            }
            Outcome::Vacant(Vacancy::Unknown) => {}
            // A server that changes its role with each answer would fill the log.
            Outcome::Vacant(vacancy) if vacancy.is_pending() && is_pending(&change.before) => {}
            Outcome::Vacant(_) => {
                warn!(service:%, from = before, why = after; "no primary: new flows are refused");
            }
        }
    }

    fn outcome_name(&self, service: &str, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Elected(address) => self.server_name(service, *address),
            Outcome::Vacant(Vacancy::Contested(servers)) => {
                let names: Vec<_> = servers.iter().map(|it| self.server_name(service, *it)).collect();
                names.join(", ")
            }
            Outcome::Vacant(vacancy) => vacancy.words().to_owned(),
        }
    }

    /// Its name; its address if it is not in the file any more.
    pub(super) fn server_name(&self, service: &str, address: SocketAddr) -> String {
        let backends = self.state.service(service).map(|it| it.backends.as_slice()).unwrap_or_default();
        let named = backends.iter().find(|it| it.address == address);
        named.map_or_else(|| address.to_string(), |it| BackendName::new(service, &it.name).to_string())
    }

    /// Saves what is remembered, if it has changed. A failure is logged when it begins, and repeated with the next turn.
    pub(super) fn save_roles_or_warn(&mut self, now: Instant) {
        if self.roles_retry.is_some_and(|retry| now < retry) {
            return;
        }
        match self.save_roles() {
            Ok(()) => self.roles_retry = None,
            Err(error) => {
                if self.roles_retry.is_none() {
                    error!("{error:#}; retrying");
                }
                self.roles_retry = Some(now + super::RETRY);
            }
        }
    }

    pub(super) fn save_roles(&mut self) -> anyhow::Result<()> {
        if let Some(memory) = self.state.roles().unsaved() {
            self.host.save_roles(memory)?;
            self.state.set_roles_saved();
        }
        Ok(())
    }
}

fn is_pending(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Vacant(vacancy) if vacancy.is_pending())
}

fn no_mark() -> String {
    "no mark".to_owned()
}
