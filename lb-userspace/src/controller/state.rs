//! The controller's state: the intent, and the results of probes and netlink.
//!
//! Events only change the state; the controller acts on it afterwards. Time is passed in as an argument.

mod adopt;
mod agent;
mod former_counts;
mod generation;
mod grace;
mod health_state;
mod intent;
pub mod offers;
mod part;
mod presence;
mod reach;
mod role;
mod scope;
mod slow_starts;
mod standing;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::{backend::BackendId, hop::Hop, limits::Room, quiet::Quiet, service::Mode};

pub use self::{
    agent::Agent,
    grace::{Grace, Round},
    health_state::HealthState,
    part::Part,
    scope::Scope,
    standing::{Readiness, Standing},
};
use self::{
    former_counts::FormerCounts, generation::Generation, offers::Offers, reach::Reach,
    slow_starts::SlowStarts,
};
use super::roles::{Change, RoleMemory, Roles};
use crate::{
    datapath::{Attached, Op, Snapshot},
    event::{Health, HopState, Path, Probed, Target},
    shared::Shared,
    spec::{AdminState, Backend, BackendName, SLOW_START_STEPS, Service, Spec, rules::Family},
};

/// Intent, health, next hops and interfaces. What can be large is shared by copies until one of them changes.
#[derive(Clone, Debug)]
pub struct State {
    spec: Arc<Spec>,
    /// Positions of the services in the spec, by name.
    places: Arc<BTreeMap<String, usize>>,
    /// The number of backends in the spec.
    backends: usize,
    /// The most slots that its schedules can need.
    slots: u64,
    admin: BTreeMap<BackendName, AdminState>,
    health_states: Arc<BTreeMap<BackendName, HealthState>>,
    former_counts: FormerCounts,
    slow_starts: SlowStarts,
    roles: Roles,
    /// Elections with another outcome, to be logged.
    role_changes: Vec<Change>,
    /// Servers that serve reads, or do not any more, to be logged.
    read_changes: BTreeSet<BackendName>,
    reach: Arc<Reach>,
    attached: Vec<Attached>,
    addresses: BTreeSet<IpAddr>,
    /// xlb puts the addresses of ready services on this host.
    brings_addresses: bool,
    grace: Grace,
    room: Room,
    offers: Offers,
    generation: Generation,
    /// Packets of no known flow are not answered.
    quiet: Quiet,
    /// The part of the maps that may differ. `None`: they are up to date.
    dirty: Option<Scope>,
    /// A server has lost or gained a role: the maps must not wait for other changes.
    is_urgent: bool,
    /// Have the targets of health checks, the paths or the interfaces changed?
    have_watches_changed: bool,
}

impl State {
    /// The intent, without any results yet.
    pub fn new(
        spec: Spec,
        admin: BTreeMap<BackendName, AdminState>,
        roles: RoleMemory,
        now: Instant,
    ) -> Self {
        let mut state = Self {
            spec: Arc::new(Spec { services: Vec::new(), ..spec.clone() }),
            places: Arc::default(),
            backends: 0,
            slots: 0,
            admin: BTreeMap::new(),
            health_states: Arc::default(),
            former_counts: FormerCounts::default(),
            slow_starts: SlowStarts::default(),
            roles: Roles::new(roles),
            role_changes: Vec::new(),
            read_changes: BTreeSet::new(),
            reach: Arc::default(),
            attached: Vec::new(),
            addresses: BTreeSet::new(),
            brings_addresses: false,
            grace: Grace::default(),
            room: spec.limits.room(),
            offers: Offers::default(),
            generation: Generation::default(),
            quiet: Quiet::No,
            dirty: Some(Scope::All),
            is_urgent: false,
            have_watches_changed: true,
        };
        state.set_intent(spec, admin, now);
        state
    }

    /// The targets of health checks, the paths and the interfaces must be published again.
    pub fn set_watches_changed(&mut self) {
        self.have_watches_changed = true;
    }

    /// Records the result of a probe. Returns whether the health changed.
    pub fn probed(&mut self, probed: Probed, now: Instant) -> bool {
        let target = self.find(&probed.backend).and_then(|(service, it)| self.target(service, it));
        if target.is_none_or(|target| target.address != probed.address) {
            return false; // removed, moved or renamed while it was probed
        }
        let health_states = Arc::make_mut(&mut self.health_states);
        let Some(health_state) = health_states.get_mut(&probed.backend) else { return false };
        let (name, before, agent_before) = (probed.backend.clone(), health_state.health, health_state.agent);
        let report = probed.result.facts.role.clone();
        let has_changed = health_state.learn(probed, now);
        let agent = health_state.agent;
        let is_ready_again = agent_before.has_withdrawn()
            && agent.admin == AdminState::Ready
            && self.admin(&name) == AdminState::Ready;
        if is_ready_again || has_changed && before == Some(Health::Down) {
            self.begin_slow_start(&name, now);
        }
        if has_changed || agent.differs(agent_before) {
            self.set_dirty(Scope::Services([name.service.clone()].into()));
        }
        self.learn_role(&name, report, now);
        has_changed
    }

    /// A backend comes up or is ready again.
    fn begin_slow_start(&mut self, name: &BackendName, now: Instant) {
        let Some((service, _)) = self.find(name) else { return };
        let length = service.availability.slow_start;
        self.slow_starts.begin(name.clone(), length, now);
    }

    fn advance_slow_starts(&mut self, now: Instant) {
        let mut slow_starts = std::mem::take(&mut self.slow_starts);
        let services = slow_starts.advance(now, |name| {
            self.service(&name.service).map_or(Duration::ZERO, |service| service.availability.slow_start)
        });
        self.slow_starts = slow_starts;
        if !services.is_empty() {
            self.set_dirty(Scope::Services(services));
        }
    }

    /// Records the next hops reported by netlink: all of them.
    pub fn hops(&mut self, seen: BTreeMap<Path, HopState>) {
        if Arc::make_mut(&mut self.reach).learn(seen) {
            self.set_dirty(Scope::All);
        }
    }

    /// A route or a client's neighbour may have changed: flows must look up their next hop again.
    pub fn routing_changed(&mut self) {
        self.generation.routing_changed();
    }

    /// Records the interfaces and addresses of this host.
    pub fn links(&mut self, attached: Vec<Attached>, addresses: BTreeSet<IpAddr>) {
        if attached != self.attached || addresses != self.addresses {
            self.have_watches_changed = true;
            self.set_dirty(Scope::All);
        }
        self.attached = attached;
        self.addresses = addresses;
    }

    /// Advances time: routing changes and steps of slow starts become due.
    pub fn tick(&mut self, now: Instant) {
        if self.slow_starts.due().is_some_and(|due| due <= now) {
            self.advance_slow_starts(now);
        }
        if self.generation.raise_if_due(now) {
            self.set_dirty(Scope::All);
        }
    }

    /// The grace period that is to begin now, if one is due.
    pub fn begin_grace_period(&mut self, now: Instant) -> Option<Round> {
        self.grace.begin(now)
    }

    /// A grace period has ended: what fell out of use before it began can be freed.
    pub fn grace_period_ended(&mut self, round: Round) {
        self.grace.end(round);
        self.set_dirty(Scope::default());
    }

    /// When [`tick`](State::tick) or a grace period is due.
    pub fn next_tick(&self) -> Option<Instant> {
        [self.grace.due(), self.generation.due(), self.slow_starts.due()].into_iter().flatten().min()
    }

    /// Before an operation is applied to `have`: starts the grace period of what it replaces.
    pub fn applying(&mut self, op: &Op, have: &Snapshot, now: Instant) {
        self.offers.applying(op, have, now);
        self.grace.applying(op, have, now);
    }

    /// Sets the sizes of the pinned maps.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// A grace period that began after all operations has passed: no packet can be reading what was replaced.
    pub fn end_grace(&mut self) {
        self.grace.end_all();
    }

    /// This part of the maps may differ, beside others.
    pub fn set_dirty(&mut self, scope: Scope) {
        self.dirty.get_or_insert_default().extend(scope);
    }

    /// The part of the maps that may differ. `None`: they are up to date.
    pub fn dirty(&self) -> Option<&Scope> {
        self.dirty.as_ref()
    }

    /// The maps are up to date.
    pub fn set_clean(&mut self) {
        (self.dirty, self.is_urgent) = (None, false);
    }

    /// Returns whether the targets of health checks, the paths or the interfaces have changed since the last call.
    pub fn take_watches_changed(&mut self) -> bool {
        std::mem::take(&mut self.have_watches_changed)
    }
}

/// What plans, answers and watches are made from.
impl State {
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// A shared copy, which stays valid when the state gets another spec.
    pub fn shared_spec(&self) -> Arc<Spec> {
        Arc::clone(&self.spec)
    }

    pub fn admin(&self, name: &BackendName) -> AdminState {
        self.admin.get(name).copied().unwrap_or_default()
    }

    /// What its agent has said. Without an agent check: ready, with all of its weight.
    pub fn agent(&self, service: &Service, name: &BackendName) -> Agent {
        if !service.has_agents() {
            return Agent::default();
        }
        self.health_states.get(name).map(|it| it.agent).unwrap_or_default()
    }

    /// The part of its weight that counts for new flows. In panic, when all must help, slow starts do not matter.
    pub fn part(
        &self,
        service: &Service,
        backend: &Backend,
        name: &BackendName,
        in_panic: &[Family],
    ) -> Part {
        let is_in_panic = in_panic.contains(&Family::of(backend.address.ip()));
        Part {
            tenths: if is_in_panic { SLOW_START_STEPS } else { self.slow_starts.tenths(name) },
            percent: self.agent(service, name).weight,
        }
    }

    pub fn health_state(&self, name: &BackendName) -> Option<&HealthState> {
        self.health_states.get(name)
    }

    /// `None`: not known yet. Without a health check, backends are assumed to be up.
    pub fn health(&self, service: &Service, backend: &Backend) -> Option<Health> {
        if service.health.is_none() {
            return Some(Health::Up);
        }
        self.health_states.get(&BackendName::new(&service.name, &backend.name))?.health
    }

    /// Could the backend with this id get no more flows at `at`, so that all of its flows were in the table by then?
    pub fn had_last_flow(&self, id: BackendId, at: Instant) -> bool {
        self.offers.are_over(id, at)
    }

    /// The next hop of a path, if it is known.
    pub fn hop(&self, path: Path) -> Option<Hop> {
        self.reach.hop(path, &self.attached)
    }

    /// The path of packets to a backend. With full-nat, the first of the service's sources in that family that
    /// this host has is the source of route lookups.
    pub fn path(&self, service: &Service, backend: &Backend) -> Path {
        let to = backend.address.ip();
        let is_usable =
            |source: &&IpAddr| source.is_ipv4() == to.is_ipv4() && self.addresses.contains(*source);
        let from = match service.mode {
            Mode::FullNat => service.sources.iter().find(is_usable).copied(),
            Mode::Nat => None,
        };
        Path { to, from }
    }

    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The addresses of this host.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    pub fn hop_generation(&self) -> u32 {
        self.generation.value()
    }

    pub const fn quiet(&self) -> Quiet {
        self.quiet
    }

    /// Whether packets of no known flow are answered.
    pub fn set_quiet(&mut self, quiet: Quiet) {
        if self.quiet != quiet {
            self.quiet = quiet;
            self.set_dirty(Scope::All);
        }
    }

    /// The sizes of the maps for services and backends.
    pub fn room(&self) -> Room {
        self.room
    }

    /// What packets may still be reading.
    pub fn grace(&self) -> &Grace {
        &self.grace
    }

    /// The targets of health checks.
    pub fn targets(&self) -> Vec<Target> {
        backends(&self.spec).filter_map(|(service, backend)| self.target(service, backend)).collect()
    }

    /// `None`: the service has no check.
    pub fn target(&self, service: &Service, backend: &Backend) -> Option<Target> {
        let check = service.health.clone()?;
        let mut address = backend.address;
        address.set_port(check.port.unwrap_or(address.port()));
        let known = self.health(service, backend);
        Some(Target {
            backend: BackendName::new(&service.name, &backend.name),
            address,
            source: self.probe_source(service, backend),
            check,
            known,
        })
    }

    /// `None`: the host chooses. Answers to a source that is announced go to a peer while the router has no route to this node,
    /// and the peer refuses them; the backend is as healthy as before.
    fn probe_source(&self, service: &Service, backend: &Backend) -> Option<IpAddr> {
        match self.brings_addresses {
            true => None,
            false => self.path(service, backend).from,
        }
    }

    /// The paths whose next hops must be resolved.
    pub fn paths(&self) -> BTreeSet<Path> {
        backends(&self.spec).map(|(service, backend)| self.path(service, backend)).collect()
    }

    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        Some(&self.spec.services[*self.places.get(name)?])
    }

    /// The services with these names, in the order of the file.
    pub fn services(&self, names: &BTreeSet<String>) -> Vec<&Service> {
        let places: BTreeSet<usize> =
            names.iter().filter_map(|name| self.places.get(name).copied()).collect();
        places.into_iter().map(|place| &*self.spec.services[place]).collect()
    }

    /// The service and backend with this name.
    pub fn find(&self, name: &BackendName) -> Option<(&Service, &Backend)> {
        let service = self.service(&name.service)?;
        let backend = service.backends.iter().find(|backend| backend.name == name.backend)?;
        Some((service, backend))
    }

    /// The number of backends.
    pub fn backends(&self) -> usize {
        self.backends
    }

    /// The most slots that the schedules of all services can need.
    pub fn slots(&self) -> u64 {
        self.slots
    }
}

fn backends<'a>(spec: &'a Spec) -> impl Iterator<Item = (&'a Service, &'a Backend)> {
    let of = |service: &'a Shared<Service>| service.backends.iter().map(move |backend| (&**service, backend));
    spec.services.iter().flat_map(of)
}
