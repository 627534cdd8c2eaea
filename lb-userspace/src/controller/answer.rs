//! Answers of the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_common::{
    backend::{Backend as Entry, BackendId},
    counters::BackendCounters,
};

use super::{
    index::Indexed,
    readiness::LastReadiness,
    role_requests::TWO_ROLES,
    state::{HealthState, State},
    sums::Sums,
    walk::Count,
};
use crate::{
    datapath::Capacity,
    event::Health,
    metrics::{FlowTable, Flows},
    spec::{Backend, BackendName, SLOW_START_STEPS, Service, rules::Family},
    view,
};

/// A consistent view of state, maps and flow count.
pub struct Facts<'a> {
    pub state: &'a State,
    pub have: &'a Indexed,
    pub count: Option<&'a Count>,
    pub readiness: &'a LastReadiness,
    pub is_ejected: &'a dyn Fn(BackendId) -> bool,
    pub now: Instant,
}

impl Facts<'_> {
    pub fn services(&self) -> Vec<view::Service> {
        self.state.spec().services.iter().map(|service| self.service(service)).collect()
    }

    pub fn service(&self, service: &Service) -> view::Service {
        let summary = self.summary(service);
        view::Service {
            name: service.name.clone(),
            listen: service.listen.clone(),
            protocol: service.protocol,
            mode: service.mode,
            scheduler: service.scheduler,
            reject: service.reject,
            share_flows: service.share_flows,
            on_refused: service.availability.on_refused,
            on_down: service.availability.on_down,
            slow_start_seconds: service.availability.slow_start.as_secs_f64(),
            panic_threshold_percent: service.availability.panic_threshold.0,
            source: service.sources.clone(),
            peer_source: service.peer_sources.clone(),
            state: self.state.presence(service),
            backends: summary.backends,
            backends_up: summary.backends_up,
            backends_serving: summary.backends_serving,
            ready: summary.ready,
            quorum: summary.quorum,
            backends_available: summary.backends_available,
            flows: service.backends.iter().map(|backend| self.flows(service, backend).all()).sum(),
        }
    }

    pub fn summary(&self, service: &Service) -> view::ServiceSummary {
        let count = |is_meant: &dyn Fn(&Backend) -> bool| {
            service.backends.iter().filter(|backend| is_meant(backend)).count() as u32
        };
        let readiness = self.state.readiness(service);
        view::ServiceSummary {
            name: service.name.clone(),
            backends_up: count(&|backend| self.state.health(service, backend) == Some(Health::Up)),
            backends: service.backends.len() as u32,
            backends_serving: count(&|backend| {
                self.have.backend_named(&name(service, backend)).is_some_and(gets_flows)
            }),
            ready: self.readiness.is_ready(service, self.state),
            state: self.state.presence(service),
            quorum: service.availability.quorum,
            backends_available: readiness.available,
        }
    }

    pub fn summaries(&self) -> Vec<view::ServiceSummary> {
        self.state.spec().services.iter().map(|service| self.summary(service)).collect()
    }

    /// Of one service, or of all.
    pub fn backends(&self, service: Option<&str>) -> Vec<view::Backend> {
        let services = self.state.spec().services.iter();
        let meant = services.filter(|it| service.is_none_or(|service| it.name == service));
        meant
            .flat_map(|service| {
                let in_panic = self.state.families_in_panic(service);
                service.backends.iter().map(move |backend| self.of_backend(service, backend, &in_panic))
            })
            .collect()
    }

    pub fn backend(&self, service: &Service, backend: &Backend) -> view::Backend {
        self.of_backend(service, backend, &self.state.families_in_panic(service))
    }

    fn of_backend(&self, service: &Service, backend: &Backend, in_panic: &[Family]) -> view::Backend {
        let name = name(service, backend);
        let entry = self.have.backend_named(&name);
        view::Backend {
            service: service.name.clone(),
            name: backend.name.clone(),
            address: backend.address,
            weight: backend.weight,
            effective_weight: entry.filter(|entry| gets_flows(entry)).map_or(0, |_| {
                let part = self.state.part(service, backend, &name, in_panic);
                part.of(backend.weight).div_ceil(SLOW_START_STEPS)
            }),
            backup: backend.backup,
            max_flows: backend.max_flows,
            health: self.state.health(service, backend).into(),
            role: self.role(service, backend),
            lag_ms: self.state.lag(service, backend, self.now).map(milliseconds),
            ejected: entry.is_some_and(|entry| (self.is_ejected)(entry.id)),
            admin_state: self.state.admin(&name),
            flows: entry.map(|entry| self.flows_of(entry.id).all()).unwrap_or_default(),
            drained: self.is_drained(entry),
        }
    }

    fn role(&self, service: &Service, backend: &Backend) -> Option<view::BackendRole> {
        let finds_roles = service.health.as_ref().is_some_and(|check| check.probe.kind().finds_roles());
        finds_roles.then(|| self.state.role(service, backend).into())
    }

    pub fn health(&self) -> Vec<view::HealthState> {
        let services = self.state.spec().services.iter();
        services
            .flat_map(|service| service.backends.iter().map(move |backend| (service, backend)))
            .map(|(service, backend)| {
                let health_state = self.state.health_state(&name(service, backend));
                let since =
                    health_state.map(|health_state| self.now.saturating_duration_since(health_state.since));
                view::HealthState {
                    service: service.name.clone(),
                    name: backend.name.clone(),
                    address: backend.address,
                    check: service.health.as_ref().map(|check| check.probe.kind()),
                    health: self.state.health(service, backend).into(),
                    since_seconds: since.unwrap_or_default().as_secs(),
                    last: health_state.and_then(last_result),
                }
            })
            .collect()
    }

    /// The flow count of both families.
    pub fn flow_count(&self, capacity: &Capacity) -> view::FlowCount {
        let tables = self.flow_tables(capacity);
        let sum = |of: fn(&FlowTable) -> u64| tables.iter().map(of).sum();
        view::FlowCount {
            half_open: sum(|it| it.flows.half_open),
            established: sum(|it| it.flows.established),
            closing: sum(|it| it.flows.closing),
            established_max: sum(|it| it.established_max),
            half_open_max: sum(|it| it.half_open_max),
        }
    }

    /// IPv4, then IPv6.
    pub fn flow_tables(&self, capacity: &Capacity) -> [FlowTable; 2] {
        let table = |family, established_max: u32| {
            let mut flows = Flows::default();
            // Clients and backends are of the same family.
            let entries =
                self.have.backends.values().filter(|entry| Family::of(entry.address.to_ip()) == family);
            entries.for_each(|entry| flows.add(self.flows_of(entry.id)));
            FlowTable {
                family,
                flows,
                established_max: established_max.into(),
                half_open_max: capacity.half_open_flows.into(),
            }
        };
        [table(Family::V4, capacity.flows), table(Family::V6, capacity.flows_ipv6)]
    }

    /// Adds the service, followed by its backends.
    pub fn stats(&self, service: &Service, sums: &Sums, stats: &mut Vec<view::Stats>) {
        let at = stats.len();
        let mut flows = 0;
        for backend in &service.backends {
            let of_backend = self.flows(service, backend).all();
            flows += of_backend;
            stats.push(of(service, Some(backend), of_backend, &sums.backend(&backend.name)));
        }
        stats.insert(at, of(service, None, flows, &sums.of_backends()));
    }

    pub fn flows(&self, service: &Service, backend: &Backend) -> Flows {
        let entry = self.have.backend_named(&name(service, backend));
        entry.map(|entry| self.flows_of(entry.id)).unwrap_or_default()
    }

    /// The backend addresses whose flows, summed over all services, meet a condition.
    pub fn addresses(&self, meets: impl Fn(Flows) -> bool) -> BTreeSet<SocketAddr> {
        let mut sums: BTreeMap<SocketAddr, Flows> = BTreeMap::new();
        for entry in self.have.backends.values() {
            let flows = self.flows_of(entry.id);
            if flows.all() > 0 {
                let address = SocketAddr::new(entry.address.to_ip(), entry.port.get());
                sums.entry(address).or_default().add(flows);
            }
        }
        sums.into_iter().filter(|(_, flows)| meets(*flows)).map(|(address, _)| address).collect()
    }

    fn flows_of(&self, id: BackendId) -> Flows {
        self.count.map(|count| count.of(id)).unwrap_or_default()
    }

    /// No flow is left, and none can begin. True also for backends that have no map entry any more.
    fn is_drained(&self, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else { return true };
        self.count.is_some_and(|count| {
            self.state.had_last_flow(entry.id, count.begun()) && count.of(entry.id).all() == 0
        })
    }
}

fn of(service: &Service, backend: Option<&Backend>, flows: u64, counters: &BackendCounters) -> view::Stats {
    view::Stats {
        service: service.name.clone(),
        backend: backend.map(|backend| backend.name.clone()),
        flows,
        new_flows_total: counters.new_flows,
        forwarded_packets_total: counters.forwarded.packets,
        forwarded_bytes_total: counters.forwarded.bytes,
        returned_packets_total: counters.returned.packets,
        returned_bytes_total: counters.returned.bytes,
    }
}

fn last_result(health_state: &HealthState) -> Option<view::ProbeResult> {
    let mut last = view::ProbeResult::from(health_state.last.as_ref()?);
    if health_state.is_of_two_roles() {
        last.detail += &format!("; it {TWO_ROLES}");
    }
    Some(last)
}

pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn gets_flows(entry: &Entry) -> bool {
    entry.accepts != Entry::ACCEPTS_NONE
}

fn name(service: &Service, backend: &Backend) -> BackendName {
    BackendName::new(&service.name, &backend.name)
}
