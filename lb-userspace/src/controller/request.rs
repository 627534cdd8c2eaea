//! Questions and commands, answered one by one in the order in which they came.

use std::time::Instant;

use log::{info, warn};

use super::{
    ASKED_MAX, Controller, Host, Reply, Trust,
    answer::Facts,
    listing::{Filter, Listing},
    sums::Sums,
    walk::COUNT_MAX_AGE,
};
use crate::{
    datapath::Datapath,
    event::{Answer, Request},
    problem::{Problem, ProblemKind},
    spec::{BackendName, Service, rules::OwnAddresses},
    view,
};

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    request: Request,
    reply: Reply,
    /// A count of flows that is to be in the answer must have begun no earlier.
    counted_since: Instant,
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Takes a request in, if not too many wait already.
    pub(super) fn asked(&mut self, request: Request, reply: Reply, now: Instant) {
        if self.asked.len() < ASKED_MAX {
            let counted_since = now.checked_sub(COUNT_MAX_AGE).unwrap_or(now);
            self.asked.push_back(Asked { request, reply, counted_since });
            return;
        }
        let detail = format!("{ASKED_MAX} requests wait for an answer already: try again");
        warn!(request:%; "request refused: {detail}");
        let _gone = reply.send(Err(Problem::new(ProblemKind::Failed, detail)));
    }

    /// Answers what can be answered. A request for numbers of flows waits until they are counted.
    pub(super) fn answer(&mut self, now: Instant) {
        for asked in std::mem::take(&mut self.asked) {
            if asked.reply.is_closed() {
                continue; // the client has gone, and a command of a client that has gone is not carried out
            }
            self.answer_one(asked, now);
        }
    }

    fn answer_one(&mut self, asked: Asked, now: Instant) {
        let Asked { request, reply, counted_since } = asked;
        if shows_flows(&request) && !self.walks.count_since(counted_since, now) {
            self.asked.push_back(Asked { request, reply, counted_since });
        } else if let Request::Flows(query) = &request {
            self.list_flows(query, reply);
        } else if request == Request::Detach {
            self.detach = Some(reply);
        } else {
            match self.outcome(request, now) {
                Ok(Outcome::Answer(answer)) => drop(reply.send(Ok(answer))),
                Ok(Outcome::Changed(backend)) => {
                    let request = Request::Backend { backend };
                    self.answer_one(Asked { request, reply, counted_since: now }, now);
                }
                Err(problem) => drop(reply.send(Err(problem))),
            }
        }
    }

    fn outcome(&mut self, request: Request, now: Instant) -> Result<Outcome, Problem> {
        let answer = match request {
            Request::Status => Answer::Status(self.status(now)),
            Request::Services => Answer::Services(self.with_facts(|facts| facts.services())),
            Request::Backends { service } => self.backends(service.as_deref())?,
            Request::Backend { backend } => self.backend(&backend)?,
            Request::Health => Answer::Health(self.with_facts(|facts| facts.health(now))),
            Request::Probe { backend } => self.probe_target(&backend)?,
            Request::FlowCount => Answer::FlowCount(self.flow_count()),
            Request::Stats => self.stats()?,
            Request::Metrics => self.metrics()?,
            Request::Reload => Answer::Reload(self.reload(now)?),
            Request::AddBackend { backend, body } => {
                OwnAddresses::of_host(self.state.addresses()).refuse(body.address)?;
                self.change(now, |overlay, file| overlay.add(file, &backend, &body))?;
                info!(backend:% = backend, address:% = body.address; "backend added");
                return Ok(Outcome::Changed(backend));
            }
            Request::RemoveBackend { backend } => {
                self.change(now, |overlay, file| overlay.remove(file, &backend))?;
                info!(backend:% = backend; "backend removed");
                Answer::Done
            }
            Request::PatchBackend { backend, body } => {
                self.change(now, |overlay, file| overlay.patch(file, &backend, &body))?;
                info!(backend:% = backend, change:% = body; "backend changed");
                if self.state.find(&backend).is_some() {
                    return Ok(Outcome::Changed(backend));
                }
                Answer::Done // `ready` for a backend that the file no longer has: its entry is gone
            }
            // They keep their reply, see `answer_one`.
            Request::Flows(_) | Request::Detach => Answer::Done,
        };
        Ok(Outcome::Answer(answer))
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
        let sums = Sums::of(&totals, &self.have);
        Ok(Answer::Stats(self.with_facts(|facts| facts.stats(&sums))))
    }

    fn flow_count(&self) -> view::FlowCount {
        self.with_facts(|facts| facts.flow_count(&self.capacity))
    }

    pub(super) fn with_facts<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        look(&Facts::new(&self.state, &self.have, self.walks.last_count()))
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

/// What came of a request.
enum Outcome {
    Answer(Answer),
    /// The backend was changed: it is shown once its flows have been counted after that.
    Changed(BackendName),
}

/// Are numbers of flows in the answer, which have to be counted first?
fn shows_flows(request: &Request) -> bool {
    match request {
        Request::Status
        | Request::Services
        | Request::Backends { .. }
        | Request::Backend { .. }
        | Request::FlowCount
        | Request::Stats
        | Request::Metrics => true,
        Request::Health
        | Request::Probe { .. }
        | Request::Flows(_)
        | Request::Reload
        | Request::Detach
        | Request::AddBackend { .. }
        | Request::RemoveBackend { .. }
        | Request::PatchBackend { .. } => false,
    }
}

fn failed(error: &anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{error:#}"))
}
