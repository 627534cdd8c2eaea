//! Requests, answered in the order in which they arrive.

use std::time::{Instant, SystemTime};

use log::warn;

use super::{
    Controller, Host, Trust, WAITING_MAX,
    answer::Facts,
    cluster::Member,
    edit::Edit,
    listing::{self, Listing},
    removal::Removal,
    selection::Selection,
    sums::Sums,
    walk::COUNT_MAX_AGE,
};
use crate::{
    datapath::Datapath,
    event::{Reply, Request, Target},
    problem::{Problem, ProblemKind},
    spec::{BackendName, Service},
    view,
};

/// A request that waits for its answer.
#[derive(Debug)]
pub struct PendingRequest {
    what: Pending,
    /// If the answer has flow counts, the count must have begun at this time or later.
    counted_since: Instant,
}

#[derive(Debug)]
pub enum Pending {
    Request(Request),
    /// The backend was changed. The answer has its flows, counted after the change.
    Changed {
        backend: BackendName,
        reply: Reply<Option<view::Backend>>,
    },
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Queues a request, unless too many are pending.
    pub(super) fn queue(&mut self, request: Request, now: Instant) {
        if self.waiting.len() < WAITING_MAX {
            let counted_since = now.checked_sub(COUNT_MAX_AGE).unwrap_or(now);
            self.waiting.push_back(PendingRequest { what: Pending::Request(request), counted_since });
            return;
        }
        let detail = format!("{WAITING_MAX} requests are already waiting: try again later");
        warn!(request:%; "request refused: {detail}");
        request.refuse(Problem::new(ProblemKind::Failed, detail));
    }

    /// Answers requests. Those with flow counts wait for the count.
    pub(super) fn answer(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            // A command is not executed if its client has disconnected.
            if !waiting.what.is_abandoned() {
                self.answer_or_wait(waiting, now);
            }
        }
    }

    fn answer_or_wait(&mut self, waiting: PendingRequest, now: Instant) {
        if waiting.what.changes_cluster() && self.member.as_ref().is_some_and(Member::is_writing) {
            self.waiting.push_back(waiting);
            return;
        }
        if waiting.what.shows_flows() && !self.walks.count_since(waiting.counted_since, now) {
            self.waiting.push_back(waiting);
            return;
        }
        match waiting.what {
            Pending::Request(request) => self.carry_out(request, now),
            Pending::Changed { backend, reply } => reply.send(self.backend(&backend).map(Some)),
        }
    }

    fn carry_out(&mut self, request: Request, now: Instant) {
        match request {
            Request::Status(reply) => reply.send(Ok(self.status(now))),
            Request::Readiness { service: None, reply } => reply.send(Ok(self.unready())),
            Request::Readiness { service: Some(service), reply } => reply.send(self.unready_for(&service)),
            Request::Node(reply) => reply.send(Ok(self.node(now))),
            Request::DrainNode { is_drained, reply } => reply.send(self.drain_node(is_drained, now)),
            Request::Group(reply) => reply.send(self.group()),
            Request::Services(reply) => reply.send(Ok(self.with_facts(|facts| facts.services()))),
            Request::Backends { service, reply } => reply.send(self.backends(service.as_deref())),
            Request::Backend { backend, reply } => reply.send(self.backend(&backend)),
            Request::Health(reply) => reply.send(Ok(self.with_facts(|facts| facts.health()))),
            Request::Probe { backend, reply } => reply.send(self.probe_target(&backend)),
            Request::Roles(reply) => reply.send(Ok(self.service_roles(now))),
            Request::Fence { service, reply } => reply.send(self.fence(&service, now)),
            Request::Unfence { service, reply } => reply.send(self.unfence(&service, now)),
            Request::Force { backend, reply } => reply.send(self.force(&backend, now)),
            Request::Flows { query, reply } => self.list_flows(&query, reply),
            Request::RemoveFlows { query, reply } => self.remove_flows(&query, reply),
            Request::FlowCount(reply) => reply.send(Ok(self.flow_count())),
            Request::Stats(reply) => reply.send(self.stats()),
            Request::Metrics(reply) => self.begin_scrape(reply),
            Request::Reload(reply) => reply.send(self.reload(now)),
            Request::Detach(reply) => self.detach = Some(reply),
            Request::Cluster(reply) => reply.send(self.cluster()),
            Request::ClusterDocument(reply) => reply.send(self.cluster_document()),
            Request::Push { push, reply } => self.push(push, reply, now),
            Request::AddBackend { backend, body, reply } => {
                self.edit(Edit::Add { backend, body, reply }, now)
            }
            Request::RemoveBackend { backend, reply } => self.edit(Edit::Remove { backend, reply }, now),
            Request::PatchBackend { backend, body, reply } => {
                self.edit(Edit::Patch { backend, body, reply }, now);
            }
        }
    }

    /// Answers with a backend and its flows, counted after the change.
    pub(super) fn reply_with_backend(&mut self, what: Pending, now: Instant) {
        self.answer_or_wait(PendingRequest { what, counted_since: now }, now);
    }

    fn status(&self, now: Instant) -> view::Status {
        let mut warnings = self.warnings();
        if let Trust::Failed { error, .. } = &self.trust {
            warnings.push(format!("cannot update the maps: {error}"));
        }
        warnings.extend(self.track.failure().map(str::to_owned));
        warnings.extend(self.announce.failure().map(str::to_owned));
        warnings.extend(self.cluster_warnings());
        if let Some(failure) = &self.host_failure {
            warnings.push(format!("cannot restore interfaces and pins: {failure}"));
        }
        view::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.since.instant).as_secs(),
            config: self.config.display().to_string(),
            node: self.node(now),
            group: self.group().ok(),
            cluster: self.cluster().ok(),
            interfaces: self.interfaces(),
            services: self.with_facts(|facts| facts.summaries()),
            roles: self.service_roles(now),
            flows: self.flow_count(),
            overlay: self.intent.overlay.differences(),
            warnings,
            last_reload_successful: self.reload.error.is_none(),
            last_reload_error: self.reload.error.clone(),
            map_memory_bytes: self.capacity.map_memory_bytes,
            services_max: self.capacity.room.services,
            backends_max: self.capacity.room.backends,
            slots: self.state.slots(),
            slots_max: self.capacity.room.slots,
        }
    }

    fn group(&self) -> Result<view::Group, Problem> {
        let alone =
            || Problem::new(ProblemKind::NotFound, "this node is alone: the configuration has no [group]");
        let status = self.host.group().ok_or_else(alone)?;
        Ok(view::Group::of(&status, self.state.quiet(), SystemTime::now()))
    }

    /// The attached interfaces, then configured ones that are not attached.
    pub(super) fn interfaces(&self) -> Vec<view::Interface> {
        let attached = self.state.attached().iter().map(|it| view::Interface {
            name: it.name.clone(),
            index: it.index.0,
            mode: Some(it.mode),
            attached: true,
            mtu: it.mtu,
        });
        let is_missing = |name: &str| !self.state.attached().iter().any(|it| it.name == name);
        let missing = self.running.interfaces.iter().filter(|it| is_missing(&it.name));
        let missing = missing.map(|it| view::Interface {
            name: it.name.clone(),
            index: 0,
            mode: None,
            attached: false,
            mtu: 0,
        });
        attached.chain(missing).collect()
    }

    fn backends(&self, service: Option<&str>) -> Result<Vec<view::Backend>, Problem> {
        if let Some(name) = service {
            self.service(name)?;
        }
        Ok(self.with_facts(|facts| facts.backends(service)))
    }

    fn backend(&self, name: &BackendName) -> Result<view::Backend, Problem> {
        let (service, backend) = self.state.find(name).ok_or_else(|| self.no_backend(name))?;
        Ok(self.with_facts(|facts| facts.backend(service, backend)))
    }

    fn probe_target(&self, name: &BackendName) -> Result<Target, Problem> {
        let (service, backend) = self.state.find(name).ok_or_else(|| self.no_backend(name))?;
        let no_check = || {
            let detail = format!(
                "service {} has no health check, so there is nothing to probe: its backends are assumed to be up",
                service.name
            );
            Problem::new(ProblemKind::Conflict, detail)
        };
        self.state.target(service, backend).ok_or_else(no_check)
    }

    fn list_flows(&mut self, query: &view::FlowQuery, reply: Reply<Vec<view::Flow>>) {
        match listing::limit(query).and_then(|limit| Ok((self.selection(query)?, limit))) {
            Ok((selection, limit)) => self.walks.list(Listing::new(selection, limit, reply)),
            Err(problem) => reply.send(Err(problem)),
        }
    }

    fn remove_flows(&mut self, query: &view::FlowQuery, reply: Reply<view::FlowsRemoved>) {
        let limit = query.limit.map_or(u64::MAX, |limit| limit as u64);
        match self.selection(query) {
            Ok(selection) => self.walks.remove(Removal::new(selection, limit, reply)),
            Err(problem) => reply.send(Err(problem)),
        }
    }

    fn selection(&self, query: &view::FlowQuery) -> Result<Selection, Problem> {
        let selection = Selection::parse(query)?;
        if let Some(service) = selection.service() {
            self.service(service)?;
        }
        match selection.backend() {
            Some(name) if self.state.find(name).is_none() => Err(self.no_backend(name)),
            Some(_) | None => Ok(selection),
        }
    }

    fn stats(&self) -> Result<Vec<view::Stats>, Problem> {
        let mut stats = Vec::new();
        for service in &self.state.spec().services {
            let sums = Sums::of(&self.datapath, &self.have, &service.name).map_err(|error| failed(&error))?;
            self.with_facts(|facts| facts.stats(service, &sums, &mut stats));
        }
        Ok(stats)
    }

    fn flow_count(&self) -> view::FlowCount {
        self.with_facts(|facts| facts.flow_count(&self.capacity))
    }

    pub(super) fn with_facts<T>(&self, read: impl FnOnce(&Facts<'_>) -> T) -> T {
        let is_ejected = |id| self.datapath.is_ejected(id);
        read(&Facts {
            state: &self.state,
            have: &self.have,
            count: self.walks.last_count(),
            readiness: &self.readiness,
            is_ejected: &is_ejected,
            now: self.at,
        })
    }

    pub(super) fn service(&self, name: &str) -> Result<&Service, Problem> {
        let absent = || Problem::new(ProblemKind::NotFound, format!("there is no service `{name}`"));
        self.state.service(name).ok_or_else(absent)
    }

    pub(super) fn no_backend(&self, name: &BackendName) -> Problem {
        match self.service(&name.service) {
            Ok(_) => Problem::new(ProblemKind::NotFound, format!("there is no backend `{name}`")),
            Err(problem) => problem,
        }
    }
}

impl Pending {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Request(request) => request.is_abandoned(),
            Self::Changed { reply, .. } => reply.is_closed(),
        }
    }

    /// Does it change what the nodes of a cluster have in common?
    fn changes_cluster(&self) -> bool {
        match self {
            Self::Request(request) => request.changes_cluster(),
            Self::Changed { .. } => false,
        }
    }

    /// Does the answer have flow counts?
    fn shows_flows(&self) -> bool {
        let Self::Request(request) = self else { return true };
        match request {
            Request::Status(_)
            | Request::Services(_)
            | Request::Backends { .. }
            | Request::Backend { .. }
            | Request::FlowCount(_)
            | Request::Stats(_)
            | Request::Metrics(_) => true,
            Request::Readiness { .. }
            | Request::Node(_)
            | Request::DrainNode { .. }
            | Request::Group(_)
            | Request::Roles(_)
            | Request::Fence { .. }
            | Request::Unfence { .. }
            | Request::Force { .. }
            | Request::Health(_)
            | Request::Probe { .. }
            | Request::Flows { .. }
            | Request::RemoveFlows { .. }
            | Request::Reload(_)
            | Request::Detach(_)
            | Request::Cluster(_)
            | Request::ClusterDocument(_)
            | Request::Push { .. }
            | Request::AddBackend { .. }
            | Request::RemoveBackend { .. }
            | Request::PatchBackend { .. } => false,
        }
    }
}

fn failed(error: &anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{error:#}"))
}
