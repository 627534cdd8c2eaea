//! Takes over pinned maps: the slots show the last known health, which is kept until rise or fall is reached.

use std::{sync::Arc, time::Instant};

use lb_common::{backend::Backend as Entry, counters::ServiceNumber, hop::InterfaceIndex, net::Protocol};

use super::{Agent, Scope, State};
use crate::{
    controller::{identity::Former, index::Indexed},
    event::Health,
    probe::WeightPercent,
    shared::Shared,
    spec::{AdminState, Backend, BackendName, OnDown, SLOW_START_STEPS, Scheduler, Service},
};

impl State {
    /// Takes over the health of the spec's backends from the maps. The interfaces must be known already.
    pub fn adopt(&mut self, have: &Indexed, now: Instant) {
        self.generation.adopt(have.hop_generation);
        self.grace.adopt(have, now);
        self.offers.adopt(have, now);

        let spec = Arc::clone(&self.spec);
        let formers = Former::in_maps(have).of_each(&spec.services);
        self.adopt_names_of_roles(&formers, have);
        for (service, former) in spec.services.iter().zip(formers) {
            let places = former.map(|number| have.backends_by_address(number)).unwrap_or_default();
            for backend in &service.backends {
                let entry = places.get(&backend.address).copied();
                self.adopt_backend((service, backend), entry, have, now);
            }
        }
        self.set_dirty(Scope::All);
    }

    /// Services that were renamed while the daemon was stopped keep their primaries and fences.
    fn adopt_names_of_roles(&mut self, formers: &[Option<ServiceNumber>], have: &Indexed) {
        let spec = Arc::clone(&self.spec);
        let pair = |(service, former): (&Shared<Service>, &Option<ServiceNumber>)| {
            let name = have.service_names.get(&(*former)?)?;
            (*name != service.name).then(|| (name.clone(), service.name.clone()))
        };
        let pairs: Vec<_> = spec.services.iter().zip(formers).filter_map(pair).collect();
        self.roles.rename(&pairs);
    }

    fn adopt_backend(
        &mut self,
        (service, backend): (&Service, &Backend),
        entry: Option<&Entry>,
        have: &Indexed,
        now: Instant,
    ) {
        let name = BackendName::new(&service.name, &backend.name);
        if entry.is_none() && have.backend_number(&name).is_none() {
            return; // unknown: the first result decides
        }
        if let Some(entry) = entry.filter(|entry| entry.hop.interface != InterfaceIndex::NONE) {
            let path = self.path(service, backend);
            Arc::make_mut(&mut self.reach).adopt(path, entry.hop);
        }
        if entry.is_some_and(|entry| entry.accepts == Entry::ACCEPTS) {
            let cluster = self.cluster(service);
            self.roles.adopt(&cluster, backend.address, now);
        }
        let health = self.adopted_health(service, backend, entry);
        let agent = assumed_agent(service, backend, entry);
        Arc::make_mut(&mut self.health_states)
            .entry(name)
            .and_modify(|health_state| (health_state.health, health_state.agent) = (health, agent));
    }

    fn adopted_health(&self, service: &Service, backend: &Backend, entry: Option<&Entry>) -> Option<Health> {
        let admin = self.admin(&BackendName::new(&service.name, &backend.name));
        match entry {
            Some(entry) if entry.accepts == Entry::ACCEPTS => Some(Health::Up),
            Some(entry) if entry.accepts == Entry::ACCEPTS_IN_PANIC => Some(Health::Down),
            // Its role may be the reason. The first result decides.
            Some(_) | None if service.role.wanted.is_some() => None,
            // It would get no new flows in either case. But a UDP backend that is down has no entry.
            Some(_) if service.has_agents() || !self.would_serve(service, backend) => {
                (service.protocol == Protocol::Udp).then_some(Health::Up)
            }
            Some(_) => Some(Health::Down),
            None if admin != AdminState::Maint && has_no_entry_when_down(service) => Some(Health::Down),
            None => None,
        }
    }

    /// Would the backend get new flows if it were up?
    fn would_serve(&self, service: &Service, backend: &Backend) -> bool {
        let admin = self.admin(&BackendName::new(&service.name, &backend.name));
        admin == AdminState::Ready
            && backend.weight > 0
            && !backend.backup
            && self.hop(self.path(service, backend)).is_some()
    }
}

/// What the agent has said is not in the maps. A backend without new flows may be drained by it, and gets none before
/// it has answered; otherwise the weight stays until then.
fn assumed_agent(service: &Service, backend: &Backend, entry: Option<&Entry>) -> Agent {
    match entry.filter(|_| service.has_agents()) {
        Some(entry) if entry.accepts == Entry::ACCEPTS_NONE => {
            Agent::assumed(AdminState::Drain, WeightPercent::ALL)
        }
        Some(entry) if service.scheduler != Scheduler::RoundRobin && entry.weight > 0 => {
            let tenths = backend.weight.max(1) * SLOW_START_STEPS;
            let percent = WeightPercent((entry.weight * WeightPercent::ALL.0).div_ceil(tenths));
            Agent::assumed(AdminState::Ready, percent.min(WeightPercent::MOST))
        }
        Some(_) | None => Agent::default(),
    }
}

fn has_no_entry_when_down(service: &Service) -> bool {
    service.protocol == Protocol::Udp || service.availability.on_down == OnDown::Reset
}
