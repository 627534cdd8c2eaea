//! The controller's part of the metrics.

use lb_common::counters::{BackendCounters, Tally};

use super::{Controller, Host, answer::Facts, sums::Sums};
use crate::{
    datapath::{Datapath, Totals},
    metrics::{Backend, Input, Interface, Service, render},
    problem::{Problem, ProblemKind},
    spec::{self, BackendName},
};

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn metrics(&mut self) -> Result<String, Problem> {
        let failed = |error: anyhow::Error| Problem::new(ProblemKind::Failed, format!("{error:#}"));
        let totals = self.datapath.totals().map_err(failed)?;
        render(&self.input(&totals)).map_err(|error| failed(error.into()))
    }

    fn input(&self, totals: &Totals) -> Input {
        let sums = Sums::of(totals, &self.have);
        self.with_facts(|facts| Input {
            services: self
                .state
                .spec()
                .services
                .iter()
                .map(|it| self.service_input(facts, &sums, it))
                .collect(),
            interfaces: self.interfaces().into_iter().map(|view| interface(view, totals)).collect(),
            flow_tables: facts.flow_tables(&self.capacity),
            reasons: totals.reasons.clone(),
            last_reload_successful: self.reload.error.is_none(),
            last_reload_success: self.reload.succeeded,
        })
    }

    fn service_input(&self, facts: &Facts<'_>, sums: &Sums, service: &spec::Service) -> Service {
        let backends = service.backends.iter().map(|backend| {
            let counters = sums.backend(&BackendName::new(&service.name, &backend.name));
            self.backend_input(facts, service, backend, counters)
        });
        let (sum, refused) = (sums.of_backends(&service.name), sums.refused(&service.name));
        let received = Tally {
            packets: sum.forwarded.packets + refused.packets,
            bytes: sum.forwarded.bytes + refused.bytes,
        };
        Service {
            view: facts.service(service),
            received,
            new_flows: sum.new_flows,
            backends: backends.collect(),
        }
    }

    fn backend_input(
        &self,
        facts: &Facts<'_>,
        service: &spec::Service,
        backend: &spec::Backend,
        counters: BackendCounters,
    ) -> Backend {
        let health_state = self.state.health_state(&BackendName::new(&service.name, &backend.name));
        Backend {
            view: facts.backend(service, backend),
            counters,
            state_changes: health_state.map(|health_state| health_state.changes).unwrap_or_default(),
            checks: health_state
                .filter(|_| service.health.is_some())
                .map(|health_state| health_state.checks.clone()),
        }
    }
}

fn interface(view: crate::view::Interface, totals: &Totals) -> Interface {
    let actions = totals.actions.get(&view.index).copied().unwrap_or_default();
    Interface { view, actions }
}
