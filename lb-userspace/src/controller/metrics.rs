//! What is known, as the metrics show it.

use lb_common::counters::{BackendCounters, Tally};

use super::{
    Controller, Host,
    answer::{self, Facts},
};
use crate::{
    datapath::{Datapath, Totals},
    event::{Answer, Problem, ProblemKind},
    metrics::{Backend, Input, Interface, Service, render},
    spec::{self, BackendName},
};

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn metrics(&mut self) -> Result<Answer, Problem> {
        let failed = |error: anyhow::Error| Problem::new(ProblemKind::Failed, format!("{error:#}"));
        let totals = self.datapath.totals().map_err(failed)?;
        let text = render(&self.input(&totals)).map_err(|error| failed(error.into()))?;
        Ok(Answer::Metrics(text))
    }

    fn input(&self, totals: &Totals) -> Input {
        self.with_facts(|facts| Input {
            services: self
                .state
                .spec()
                .services
                .iter()
                .map(|it| self.service_input(facts, totals, it))
                .collect(),
            interfaces: self.interfaces().into_iter().map(|view| interface(view, totals)).collect(),
            flow_tables: facts.flow_tables(&self.capacity),
            reasons: totals.reasons.clone(),
            last_reload_successful: self.reload.error.is_none(),
            last_reload_success: self.reload.succeeded,
        })
    }

    fn service_input(&self, facts: &Facts<'_>, totals: &Totals, service: &spec::Service) -> Service {
        let mut sum = self.past.get(&service.name).copied().unwrap_or_default();
        let mut backends = Vec::new();
        for backend in &service.backends {
            let counters = facts.counters(totals, &BackendName::new(&service.name, &backend.name));
            answer::add(&mut sum, &counters);
            backends.push(self.backend_input(facts, service, backend, counters));
        }
        let refused = facts.refused(totals, service);
        let received = Tally {
            packets: sum.forwarded.packets + refused.packets,
            bytes: sum.forwarded.bytes + refused.bytes,
        };
        Service { view: facts.service(service), received, new_flows: sum.new_flows, backends }
    }

    fn backend_input(
        &self,
        facts: &Facts<'_>,
        service: &spec::Service,
        backend: &spec::Backend,
        counters: BackendCounters,
    ) -> Backend {
        let belief = self.state.belief(&BackendName::new(&service.name, &backend.name));
        Backend {
            view: facts.backend(service, backend),
            counters,
            state_changes: belief.map(|belief| belief.changes).unwrap_or_default(),
            checks: belief.filter(|_| service.health.is_some()).map(|belief| belief.checks.clone()),
        }
    }
}

fn interface(view: crate::api::view::Interface, totals: &Totals) -> Interface {
    let actions = totals.actions.get(&view.index).copied().unwrap_or_default();
    Interface { view, actions }
}
