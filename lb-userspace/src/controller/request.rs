//! Questions and commands, answered one by one in the order in which they came.

use std::time::Instant;

use log::{info, warn};

use super::{
    ASKED_MAX, Controller, Host, Reply, Trust,
    answer::Facts,
    listing::{Filter, Listing},
    walk::Count,
};
use crate::{
    api::view,
    datapath::Datapath,
    event::{Answer, Problem, ProblemKind, Request},
    spec::{BackendName, Service, rules::OwnAddresses},
};

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Takes a request in, if not too many wait already.
    pub(super) fn asked(&mut self, request: Request, reply: Reply) {
        if self.asked.len() < ASKED_MAX {
            self.asked.push_back((request, reply));
            return;
        }
        let detail = format!("{ASKED_MAX} requests wait for an answer already: try again");
        warn!(request:%; "request refused: {detail}");
        let _gone = reply.send(Err(Problem::new(ProblemKind::Failed, detail)));
    }

    /// Answers everybody who can be answered. Who asks for numbers of flows waits until they are counted.
    pub(super) fn answer(&mut self, now: Instant) {
        for (request, reply) in std::mem::take(&mut self.asked) {
            if reply.is_closed() {
                continue; // nobody waits any more: a command that nobody stands behind is not carried out
            }
            if !is_ready(&request, || self.walks.count(now).is_some()) {
                self.asked.push_back((request, reply));
            } else if let Request::Flows(query) = &request {
                self.list_flows(query, reply);
            } else if request == Request::Detach {
                self.detach = Some(reply);
            } else {
                let _gone = reply.send(self.outcome(request, now));
            }
        }
    }

    fn outcome(&mut self, request: Request, now: Instant) -> Result<Answer, Problem> {
        match request {
            Request::Status => Ok(Answer::Status(self.status(now))),
            Request::Services => Ok(Answer::Services(self.with_facts(|facts| facts.services()))),
            Request::Backends { service } => self.backends(service.as_deref()),
            Request::Health => Ok(Answer::Health(self.with_facts(|facts| facts.health(now)))),
            Request::Probe { backend } => self.probe_target(&backend),
            Request::FlowCount => Ok(Answer::FlowCount(self.flow_count())),
            Request::Stats => self.stats(),
            Request::Metrics => self.metrics(),
            Request::Reload => Ok(Answer::Reload(self.reload(now)?)),
            Request::AddBackend { backend, body } => {
                OwnAddresses::of_host(self.state.addresses()).refuse(body.address)?;
                self.change(now, |overlay, file| overlay.add(file, &backend, &body))?;
                info!(backend:% = backend, address:% = body.address; "backend added");
                self.backend(&backend)
            }
            Request::RemoveBackend { backend } => {
                self.change(now, |overlay, file| overlay.remove(file, &backend))?;
                info!(backend:% = backend; "backend removed");
                Ok(Answer::Done)
            }
            Request::PatchBackend { backend, body } => {
                self.change(now, |overlay, file| overlay.patch(file, &backend, &body))?;
                info!(backend:% = backend, change:% = body; "backend changed");
                // Ready was said of one whose service is gone: nothing is left of it.
                if self.state.find(&backend).is_none() { Ok(Answer::Done) } else { self.backend(&backend) }
            }
            // They keep their reply, see `answer`.
            Request::Flows(_) | Request::Detach => Ok(Answer::Done),
        }
    }

    fn status(&self, now: Instant) -> view::Status {
        let mut warnings = self.warnings();
        if let Trust::Failed { error, .. } = &self.trust {
            warnings.push(format!("the maps are not as they are wanted: {error}"));
        }
        if let Some(failure) = &self.host_failure {
            warnings.push(format!("interfaces and pins cannot be kept in order: {failure}"));
        }
        view::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.since.instant).as_secs(),
            config: self.config.display().to_string(),
            interfaces: self.interfaces(),
            services: self.with_facts(|facts| facts.summaries()),
            flows: self.flow_count(),
            overlay: self.wishes.overlay.differences(),
            warnings,
            last_reload_successful: self.reload.error.is_none(),
            last_reload_error: self.reload.error.clone(),
            map_memory_bytes: self.capacity.map_memory_bytes,
        }
    }

    /// Those that are attached, and those that should be.
    pub(super) fn interfaces(&self) -> Vec<view::Interface> {
        let attached = self.state.attached().iter().map(|it| view::Interface {
            name: it.name.clone(),
            index: it.index,
            mode: it.mode.to_owned(),
            attached: true,
            mtu: it.mtu,
        });
        let is_missing = |name: &str| !self.state.attached().iter().any(|it| it.name == name);
        let missing = self.running.interfaces.iter().filter(|it| is_missing(&it.name));
        let missing = missing.map(|it| view::Interface {
            name: it.name.clone(),
            index: 0,
            mode: "none".to_owned(),
            attached: false,
            mtu: 0,
        });
        attached.chain(missing).collect()
    }

    fn backends(&self, service: Option<&str>) -> Result<Answer, Problem> {
        if let Some(name) = service {
            self.service(name)?;
        }
        Ok(Answer::Backends(self.with_facts(|facts| facts.backends(service))))
    }

    fn backend(&self, name: &BackendName) -> Result<Answer, Problem> {
        let (service, backend) = self.state.find(name).ok_or_else(|| self.no_backend(name))?;
        Ok(Answer::Backend(self.with_facts(|facts| facts.backend(service, backend))))
    }

    fn probe_target(&self, name: &BackendName) -> Result<Answer, Problem> {
        let (service, backend) = self.state.find(name).ok_or_else(|| self.no_backend(name))?;
        let no_check = || {
            let detail =
                format!("service {} has no health check: its backends are taken for up", service.name);
            Problem::new(ProblemKind::Conflict, detail)
        };
        self.state.target(service, backend).map(Answer::Probe).ok_or_else(no_check)
    }

    fn list_flows(&mut self, query: &view::FlowQuery, reply: Reply) {
        let filter = match self.flow_filter(query) {
            Ok(filter) => filter,
            Err(problem) => {
                let _gone = reply.send(Err(problem));
                return;
            }
        };
        self.walks.list(Listing::new(filter, reply));
    }

    fn flow_filter(&self, query: &view::FlowQuery) -> Result<Filter, Problem> {
        let filter = Filter::parse(query)?;
        if let Some(service) = filter.service() {
            self.service(service)?;
        }
        match filter.backend() {
            Some(name) if self.state.find(name).is_none() => Err(self.no_backend(name)),
            Some(_) | None => Ok(filter),
        }
    }

    fn stats(&mut self) -> Result<Answer, Problem> {
        let totals = self.datapath.totals().map_err(|error| failed(&error))?;
        let past = |service: &str| self.past.get(service).copied().unwrap_or_default();
        Ok(Answer::Stats(self.with_facts(|facts| facts.stats(&totals, past))))
    }

    fn flow_count(&self) -> view::FlowCount {
        self.with_facts(|facts| facts.flow_count(&self.capacity))
    }

    pub(super) fn with_facts<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let nothing = Count::default();
        let count = self.walks.last_count().unwrap_or(&nothing);
        look(&Facts::new(&self.state, &self.have, count))
    }

    fn service(&self, name: &str) -> Result<&Service, Problem> {
        let services = &self.state.spec().services;
        services.iter().find(|service| service.name == name).ok_or_else(|| {
            let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
            let known = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
            Problem::new(ProblemKind::NotFound, format!("no service `{name}` (there are: {known})"))
        })
    }

    fn no_backend(&self, name: &BackendName) -> Problem {
        match self.service(&name.service) {
            Ok(_) => Problem::new(ProblemKind::NotFound, format!("there is no backend `{name}`")),
            Err(problem) => problem,
        }
    }
}

/// Can the request be answered, or do its numbers have to be counted first?
fn is_ready(request: &Request, is_counted: impl FnOnce() -> bool) -> bool {
    match request {
        Request::Status
        | Request::Services
        | Request::Backends { .. }
        | Request::FlowCount
        | Request::Stats
        | Request::Metrics => is_counted(),
        Request::Health
        | Request::Probe { .. }
        | Request::Flows(_)
        | Request::Reload
        | Request::Detach
        | Request::AddBackend { .. }
        | Request::RemoveBackend { .. }
        | Request::PatchBackend { .. } => true,
    }
}

fn failed(error: &anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{error:#}"))
}
