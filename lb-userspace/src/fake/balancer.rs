//! A fake balancer: two services in memory, which requests show and change.

mod cluster;
mod group;
mod roles;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use lb_common::{
    net::Protocol,
    service::{Mode, Reject},
};

use crate::{
    event::{Request, Target},
    metrics::{self, FlowTable, Flows},
    named::Named,
    probe::{Kind, Probe, ProbeOutcome, Tcp},
    problem::{Problem, ProblemKind},
    spec::{
        AdminState, BackendName, BackendPatch, HealthCheck, LinkMode, NewBackend, OnDown, OnRefused,
        Scheduler, rules::Family,
    },
    view::{self, FlowState, Health, Presence},
};

const MISSING_ADDRESS: &str = "service web uses the source 10.0.0.1, which is not an address of this host: \
                               ip address add 10.0.0.1/32 dev eth1";

pub struct Balancer {
    backends: Vec<view::Backend>,
    roles: Vec<view::ServiceRole>,
    reloads: u32,
    stats_left: u32,
    is_drained: bool,
}

impl Balancer {
    pub fn new() -> Self {
        let backends = vec![
            backend("web", "web-1", "10.0.0.11:8080", Health::Up, 2),
            backend("web", "web-2", "10.0.0.12:8080", Health::Up, 5),
            backend("web", "web-3", "10.0.0.13:8080", Health::Down, 0),
            view::Backend { backup: true, ..backend("web", "web-v6", "[fd00::11]:8080", Health::Up, 0) },
            backend("dns", "dns-1", "10.0.0.53:53", Health::Up, 1200),
        ];
        Self { backends, roles: roles::services(), reloads: 0, stats_left: 9, is_drained: false }
    }

    pub fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => reply.send(Ok(self.status())),
            Request::Node(reply) => reply.send(Ok(self.status().node)),
            Request::DrainNode { is_drained, reply } => {
                self.is_drained = is_drained;
                let node = self.status().node;
                // Another node has the addresses as soon as this one is drained.
                let state = if is_drained { Presence::Standby } else { node.state };
                reply.send(Ok(view::Node { state, ..node }));
            }
            Request::Group(reply) => reply.send(Ok(group::group())),
            Request::Cluster(reply) => reply.send(Ok(cluster::cluster())),
            Request::ClusterDocument(reply) => reply.send(Ok(cluster::document())),
            Request::Push { push, reply } => reply.send(cluster::push(&push)),
            Request::Readiness { reply, .. } => reply.send(Ok(Vec::new())),
            Request::Services(reply) => reply.send(Ok(self.services())),
            Request::Backends { service, reply } => reply.send(self.backends(service.as_deref())),
            Request::Backend { backend, reply } => reply.send(self.look(&backend)),
            Request::Health(reply) => reply.send(Ok(self.health())),
            Request::Probe { backend, reply } => reply.send(self.find(&backend).map(|_| target(backend))),
            Request::Roles(reply) => reply.send(Ok(self.roles.clone())),
            Request::Fence { service, reply } => reply.send(self.fence(&service, true)),
            Request::Unfence { service, reply } => reply.send(self.fence(&service, false)),
            Request::Force { backend, reply } => reply.send(self.force(&backend)),
            Request::Flows { query, reply } => reply.send(self.flows(&query)),
            Request::RemoveFlows { query, reply } => {
                let flows = self.flows(&query);
                reply.send(flows.map(|it| view::FlowsRemoved { removed: it.len() as u64 }));
            }
            Request::FlowCount(reply) => reply.send(Ok(self.flow_count())),
            Request::Stats(reply) => match self.stats_left.checked_sub(1) {
                Some(left) => {
                    self.stats_left = left;
                    reply.send(Ok(self.stats()));
                }
                None => drop(reply), // the daemon stops
            },
            Request::Metrics(reply) => reply.send(Ok(Self::metrics())),
            Request::Reload(reply) => reply.send(self.reload()),
            Request::Detach(reply) => reply.send(Ok(())),
            Request::AddBackend { backend, body, reply } => reply.send(self.add(&backend, &body)),
            Request::RemoveBackend { backend, reply } => reply.send(self.remove(&backend)),
            Request::PatchBackend { backend, body, reply } => reply.send(self.patch(&backend, &body)),
        }
    }

    /// Metrics without services: only what every daemon has.
    pub fn metrics() -> metrics::Input {
        let table = |family| FlowTable {
            family,
            flows: Flows::default(),
            established_max: 262_144,
            half_open_max: 65_536,
        };
        metrics::Input {
            state: Presence::Active,
            announced: Vec::new(),
            services: Vec::new(),
            group: None,
            cluster: None,
            interfaces: Vec::new(),
            flow_tables: Family::ALL.map(table),
            map_updates: 0,
            reasons: BTreeMap::new(),
            last_reload_successful: true,
            last_reload_success: SystemTime::UNIX_EPOCH,
            process: Vec::new(),
        }
    }

    fn find(&self, name: &BackendName) -> Result<usize, Problem> {
        let found = self.backends.iter().position(|it| it.service == name.service && it.name == name.backend);
        found.ok_or_else(|| Problem::new(ProblemKind::NotFound, format!("there is no backend `{name}`")))
    }

    pub fn backends(&self, service: Option<&str>) -> Result<Vec<view::Backend>, Problem> {
        let mut backends = self.backends.clone();
        backends.retain(|backend| service.is_none_or(|service| backend.service == service));
        if backends.is_empty() {
            let name = service.unwrap_or_default();
            return Err(Problem::new(ProblemKind::NotFound, format!("there is no service `{name}`")));
        }
        Ok(backends)
    }

    /// Each request for a drained backend removes one of its flows; those of web-2 stay. It is drained one
    /// request after the last flow has gone.
    fn look(&mut self, name: &BackendName) -> Result<view::Backend, Problem> {
        let index = self.find(name)?;
        let backend = &mut self.backends[index];
        if backend.admin_state == AdminState::Drain && backend.name != "web-2" {
            backend.drained = backend.flows == 0;
            backend.flows = backend.flows.saturating_sub(1);
        }
        Ok(backend.clone())
    }

    fn add(&mut self, name: &BackendName, body: &NewBackend) -> Result<view::Backend, Problem> {
        self.backends(Some(&name.service))?;
        if self.find(name).is_ok() {
            return Err(Problem::new(ProblemKind::Conflict, format!("{name} already exists")));
        }
        let added = view::Backend {
            weight: body.weight,
            effective_weight: 0,
            backup: body.backup,
            max_flows: body.max_flows,
            ..backend(&name.service, &name.backend, &body.address.to_string(), Health::Unknown, 0)
        };
        self.backends.push(added.clone());
        Ok(added)
    }

    fn remove(&mut self, name: &BackendName) -> Result<(), Problem> {
        let index = self.find(name)?;
        self.backends.remove(index);
        Ok(())
    }

    /// `web-gone` is in drain and no longer in the file.
    fn patch(&mut self, name: &BackendName, body: &BackendPatch) -> Result<Option<view::Backend>, Problem> {
        if name.backend == "web-gone" {
            return Ok(None);
        }
        let index = self.find(name)?;
        let backend = &mut self.backends[index];
        if let Some(state) = body.admin_state {
            backend.admin_state = state;
        }
        backend.weight = body.weight.unwrap_or(backend.weight);
        backend.backup = body.backup.unwrap_or(backend.backup);
        let gets_flows = backend.admin_state == AdminState::Ready && backend.health == Health::Up;
        backend.effective_weight = if gets_flows { backend.weight } else { 0 };
        Ok(Some(backend.clone()))
    }

    fn reload(&mut self) -> Result<view::Reloaded, Problem> {
        self.reloads += 1;
        match self.reloads {
            1 => Ok(view::Reloaded {
                changes: vec!["web/web-4: added".to_owned()],
                warnings: vec![MISSING_ADDRESS.to_owned()],
            }),
            2 => Ok(view::Reloaded { changes: vec![], warnings: vec![] }),
            _ => Err(Problem {
                kind: ProblemKind::InvalidConfiguration,
                detail: "/etc/xlb/xlb.toml has errors and was not applied".to_owned(),
                mistakes: vec![
                    "/etc/xlb/xlb.toml:12:9: `0` is not a port: expected 1 to 65535\n12 | \tlisten = [\"192.0.2.10:0\"]"
                        .to_owned(),
                    "/etc/xlb/xlb.toml:40:1: service `dns` has no [[service.backend]]".to_owned(),
                ],
            }),
        }
    }

    pub fn status(&self) -> view::Status {
        let interface = |name: &str, index| view::Interface {
            name: name.to_owned(),
            index,
            mode: Some(LinkMode::Native),
            attached: true,
            mtu: 1500,
        };
        view::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: 183_845,
            config: "/etc/xlb/xlb.toml".to_owned(),
            node: view::Node {
                state: Presence::Partial,
                drained: self.is_drained,
                since_seconds: 183_845,
                missing: vec!["192.0.2.53 (dns): ip address add 192.0.2.53/32 dev eth0".to_owned()],
                announce: None,
            },
            group: Some(group::group()),
            cluster: Some(cluster::cluster()),
            interfaces: vec![interface("eth0", 2), interface("eth1", 3)],
            roles: Vec::new(),
            services: vec![
                view::ServiceSummary {
                    name: "web".to_owned(),
                    backends_up: 3,
                    backends: 4,
                    backends_serving: 2,
                    ready: false,
                    state: Presence::Active,
                    quorum: 3,
                    backends_available: 2,
                },
                view::ServiceSummary {
                    name: "dns".to_owned(),
                    backends_up: 1,
                    backends: 1,
                    backends_serving: 1,
                    ready: true,
                    state: Presence::Standby,
                    quorum: 1,
                    backends_available: 1,
                },
            ],
            flows: self.flow_count(),
            overlay: self
                .backends
                .iter()
                .filter(|backend| backend.admin_state != AdminState::Ready)
                .map(|backend| {
                    format!("{}/{}: {}", backend.service, backend.name, backend.admin_state.name())
                })
                .collect(),
            warnings: vec![MISSING_ADDRESS.to_owned()],
            last_reload_successful: true,
            last_reload_error: None,
            map_memory_bytes: 82_000_000,
            services_max: 1024,
            backends_max: 16_384,
            slots: 32,
            slots_max: 1_048_576,
        }
    }

    pub fn services(&self) -> Vec<view::Service> {
        let service = |name: &str, listen: &[&str], protocol, mode| view::Service {
            name: name.to_owned(),
            listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
            protocol,
            mode,
            scheduler: Scheduler::RoundRobin,
            reject: Reject::Reset,
            share_flows: Default::default(),
            on_refused: OnRefused::Retry,
            on_down: OnDown::Reset,
            slow_start_seconds: 0.0,
            panic_threshold_percent: 0,
            peer_source: Vec::new(),
            source: vec![],
            state: Presence::Active,
            backends: 1,
            backends_up: 1,
            backends_serving: 1,
            ready: true,
            quorum: 1,
            backends_available: 1,
            flows: 1200,
        };
        vec![
            view::Service {
                on_down: OnDown::Keep,
                slow_start_seconds: 30.0,
                panic_threshold_percent: 50,
                source: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                backends: 4,
                backends_up: 3,
                backends_serving: 2,
                ready: false,
                quorum: 3,
                backends_available: 2,
                flows: 7,
                ..service("web", &["192.0.2.10:80", "[2001:db8::10]:80"], Protocol::Tcp, Mode::FullNat)
            },
            view::Service {
                state: Presence::Standby,
                ..service("dns", &["192.0.2.53:53"], Protocol::Udp, Mode::Nat)
            },
        ]
    }

    pub fn stats(&self) -> Vec<view::Stats> {
        let row = |service: &str, backend: Option<&str>, flows| view::Stats {
            service: service.to_owned(),
            backend: backend.map(str::to_owned),
            flows,
            new_flows_total: 10 * flows,
            forwarded_packets_total: 100 * flows,
            forwarded_bytes_total: 10_000 * flows,
            returned_packets_total: 90 * flows,
            returned_bytes_total: 900_000 * flows,
        };
        let mut rows = vec![row("web", None, 7), row("dns", None, 1200)];
        rows.extend(self.backends.iter().map(|it| row(&it.service, Some(&it.name), it.flows)));
        rows
    }

    pub fn health(&self) -> Vec<view::HealthState> {
        self.backends.iter().map(health_of).collect()
    }

    pub fn flows(&self, query: &view::FlowQuery) -> Result<Vec<view::Flow>, Problem> {
        if query.client.as_deref() == Some("everywhere") {
            let detail = "`everywhere` is neither an address nor a network like 192.0.2.0/24";
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let flow = |service: &str, backend: &str, state, idle_seconds| view::Flow {
            protocol: Protocol::Tcp,
            client: "198.51.100.7:50112".parse().unwrap(),
            listen: "192.0.2.10:80".parse().unwrap(),
            service: service.to_owned(),
            backend: backend.to_owned(),
            backend_address: "10.0.0.11:8080".parse().unwrap(),
            source: "10.0.0.1:1024".parse().unwrap(),
            state,
            idle_seconds,
        };
        let mut flows = vec![
            flow("web", "web-1", FlowState::Established, 0.25),
            flow("web", "web-2", FlowState::HalfOpen, 12.0),
        ];
        let wanted = |flow: &view::Flow| query.backend.as_ref().is_none_or(|it| it.ends_with(&flow.backend));
        flows.retain(wanted);
        flows.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(flows)
    }

    pub fn flow_count(&self) -> view::FlowCount {
        view::FlowCount {
            half_open: 3,
            established: 1204,
            closing: 0,
            established_max: 327_680,
            half_open_max: 131_072,
        }
    }
}

fn backend(service: &str, name: &str, address: &str, health: Health, flows: u64) -> view::Backend {
    view::Backend {
        service: service.to_owned(),
        name: name.to_owned(),
        address: address.parse().unwrap(),
        weight: 100,
        effective_weight: if health == Health::Down { 0 } else { 100 },
        backup: false,
        max_flows: 0,
        health,
        role: None,
        lag_ms: None,
        ejected: false,
        admin_state: AdminState::Ready,
        flows,
        drained: false,
    }
}

fn health_of(backend: &view::Backend) -> view::HealthState {
    let (check, last) = match (backend.service.as_str(), backend.health) {
        ("dns", _) => (None, None),
        (_, Health::Down) => (Some(Kind::Http), Some((ProbeOutcome::Failure, "connection refused"))),
        // Still up, but its last check failed.
        (_, _) if backend.name == "web-2" => {
            (Some(Kind::Http), Some((ProbeOutcome::Timeout, "no answer within 1s")))
        }
        (_, _) => (Some(Kind::Http), Some((ProbeOutcome::Success, "HTTP 200"))),
    };
    view::HealthState {
        service: backend.service.clone(),
        name: backend.name.clone(),
        address: backend.address,
        check,
        health: backend.health,
        since_seconds: 3_725,
        last: last.map(|(result, detail)| view::ProbeResult {
            result,
            detail: detail.to_owned(),
            duration_seconds: 0.0015,
        }),
    }
}

fn target(backend: BackendName) -> Target {
    let check = HealthCheck {
        probe: Probe::Tcp(Tcp),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        port: None,
    };
    Target { backend, address: "10.0.0.11:8080".parse().unwrap(), source: None, check, known: None }
}
