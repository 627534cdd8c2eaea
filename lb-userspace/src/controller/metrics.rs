//! The controller's part of the metrics: it collects the values, some services at a time between other work.
//!
//! So a scrape of thousands of services does not delay changes and other requests. The values of one service,
//! including its sums, are read at one moment.

use std::{collections::VecDeque, sync::Arc};

use lb_common::hop::InterfaceIndex;

use super::{Controller, Host, sums::Sums};
use crate::{
    datapath::{Datapath, Totals},
    event::Reply,
    metrics::{Backend, Input, Interface, Service, process},
    probe::Role,
    problem::{Problem, ProblemKind},
    spec::{self, BackendName, Spec, rules::Family},
};

/// Services are added to a chunk until it has this many backends: about a millisecond.
const CHUNK: usize = 256;

/// The scrapes under way, in the order of their requests.
#[derive(Debug, Default)]
pub struct Scrapes(VecDeque<Scrape>);

/// Values of a scrape so far.
#[derive(Debug)]
struct Scrape {
    /// The spec when the scrape began. A service or backend that is removed meanwhile keeps its counts.
    spec: Arc<Spec>,
    services: Vec<Service>,
    reply: Reply<Input>,
}

impl Scrapes {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn begin_scrape(&mut self, reply: Reply<Input>) {
        let spec = self.state.shared_spec();
        self.scrapes.0.push_back(Scrape { services: Vec::new(), spec, reply });
    }

    /// Collects one chunk of the first scrape.
    pub(super) fn advance_scrape(&mut self) {
        let Some(mut scrape) = self.scrapes.0.pop_front() else { return };
        if scrape.reply.is_closed() {
            return;
        }
        match self.extend_scrape(&mut scrape) {
            Ok(()) if scrape.services.len() < scrape.spec.services.len() => self.scrapes.0.push_front(scrape),
            Ok(()) => scrape.reply.send(self.input(scrape.services).map_err(failed)),
            Err(error) => scrape.reply.send(Err(failed(error))),
        }
    }

    fn extend_scrape(&self, scrape: &mut Scrape) -> anyhow::Result<()> {
        let mut backends = 0;
        for service in &scrape.spec.services[scrape.services.len()..] {
            scrape.services.push(self.service_input(service)?);
            backends += service.backends.len();
            if backends >= CHUNK {
                break;
            }
        }
        Ok(())
    }

    fn input(&self, services: Vec<Service>) -> anyhow::Result<Input> {
        let totals = self.datapath.totals()?;
        Ok(Input {
            state: self.state.node_presence(),
            announced: self.announced(),
            services,
            group: self.host.group(),
            cluster: self.cluster().ok(),
            interfaces: self.interfaces().into_iter().map(|view| interface(view, &totals)).collect(),
            flow_tables: self.with_facts(|facts| facts.flow_tables(&self.capacity)),
            reasons: totals.reasons,
            map_updates: self.map_updates,
            last_reload_successful: self.reload.error.is_none(),
            last_reload_success: self.reload.succeeded,
            process: process(),
        })
    }

    fn service_input(&self, service: &spec::Service) -> anyhow::Result<Service> {
        let sums = Sums::of(&self.datapath, &self.have, &service.name)?;
        let (mut received, refused) = (sums.of_backends().forwarded, sums.refused());
        received.packets += refused.packets;
        received.bytes += refused.bytes;
        Ok(Service {
            view: self.with_facts(|facts| facts.service(service)),
            received,
            new_flows: sums.of_backends().new_flows,
            retried_flows: sums.retried_flows(),
            fenced: self.is_fenced(service),
            panic: self.panic_of(service),
            backends: service.backends.iter().map(|it| self.backend_input(service, it, &sums)).collect(),
        })
    }

    fn is_fenced(&self, service: &spec::Service) -> Option<bool> {
        let memory = self.state.roles().memory();
        let is_fenced = memory.services.get(&service.name).is_some_and(|it| it.fence.is_some());
        (service.role.wanted == Some(Role::Primary)).then_some(is_fenced)
    }

    fn panic_of(&self, service: &spec::Service) -> Vec<(Family, bool)> {
        let in_panic = self.state.families_in_panic(service);
        let families = Family::ALL.into_iter().filter(|family| service.listens_on(*family));
        families.map(|family| (family, in_panic.contains(&family))).collect()
    }

    fn backend_input(&self, service: &spec::Service, backend: &spec::Backend, sums: &Sums) -> Backend {
        let health_state = self.state.health_state(&BackendName::new(&service.name, &backend.name));
        Backend {
            view: self.with_facts(|facts| facts.backend(service, backend)),
            counters: sums.backend(&backend.name),
            state_changes: health_state.map(|it| it.counts.changes).unwrap_or_default(),
            certificate_ends: health_state.and_then(|it| it.certificate_ends),
            checks: health_state.filter(|_| service.health.is_some()).map(|it| it.counts.checks.clone()),
        }
    }
}

fn interface(view: crate::view::Interface, totals: &Totals) -> Interface {
    let actions = totals.actions.get(&InterfaceIndex(view.index)).copied().unwrap_or_default();
    Interface { view, actions }
}

fn failed(error: anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{error:#}"))
}
