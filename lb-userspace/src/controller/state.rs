//! The controller's state: the intent, and the results of probes and netlink.
//!
//! Events only change it; what follows is decided afterwards, from the whole. Time comes in as an argument.

mod adopt;
mod generation;
mod grace;
mod health_state;
mod offers;
mod reach;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use lb_common::{hop::Hop, limits::Room, net::Protocol, service::Mode};

use self::{generation::Generation, offers::Offers, reach::Reach};
pub use self::{
    grace::{GRACE_PERIOD, Grace},
    health_state::HealthState,
};
use super::identity::{self, Former};
use crate::{
    datapath::{Attached, Op, Snapshot},
    event::{Health, HopState, Path, Probed, Target},
    spec::{AdminState, Backend, BackendName, Service, Spec},
};

/// What is known.
#[derive(Clone, Debug)]
pub struct State {
    spec: Spec,
    admin: BTreeMap<BackendName, AdminState>,
    health_states: BTreeMap<BackendName, HealthState>,
    reach: Reach,
    attached: Vec<Attached>,
    addresses: BTreeSet<IpAddr>,
    grace: Grace,
    room: Room,
    offers: Offers,
    generation: Generation,
    is_dirty: bool,
}

/// What a backend is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No flows: it has no id.
    Absent,
    /// It keeps its flows and gets no more.
    Holding,
    /// It may be given new flows.
    Eligible,
}

impl State {
    /// Knows what is wanted, and of the world nothing.
    pub fn new(spec: Spec, admin: BTreeMap<BackendName, AdminState>, now: Instant) -> Self {
        let mut state = Self {
            spec: Spec { services: Vec::new(), ..spec.clone() },
            admin: BTreeMap::new(),
            health_states: BTreeMap::new(),
            reach: Reach::default(),
            attached: Vec::new(),
            addresses: BTreeSet::new(),
            grace: Grace::default(),
            room: spec.limits.room(),
            offers: Offers::default(),
            generation: Generation::default(),
            is_dirty: true,
        };
        state.want(spec, admin, now);
        state
    }

    /// Takes a new intent. The health of a backend stays while it is the same one, whatever its name; counters stay
    /// with the name.
    pub fn want(&mut self, spec: Spec, admin: BTreeMap<BackendName, AdminState>, now: Instant) {
        let before = std::mem::replace(&mut self.spec, spec);
        let health_states = std::mem::take(&mut self.health_states);
        let formers = Former::in_spec(&before).of_each(&self.spec.services);
        for (service, former) in self.spec.services.iter().zip(formers) {
            let former = former.map(|place| &before.services[place]);
            let former = former.map(|old| (old, identity::by_address(old)));
            for backend in &service.backends {
                let name = BackendName::new(&service.name, &backend.name);
                let same =
                    former.as_ref().and_then(|(old, backends)| Some((old, *backends.get(&backend.address)?)));
                let seen =
                    same.and_then(|(old, it)| health_states.get(&BackendName::new(&old.name, &it.name)));
                let mut health_state = HealthState::of(seen, health_states.get(&name), now);
                if same.is_some_and(|(old, _)| old.health.is_none()) {
                    // It was assumed to be up without a check: it stays up until the check fails.
                    health_state.health = Some(Health::Up);
                }
                self.health_states.insert(name, health_state);
            }
        }
        self.admin = admin;
        let addresses = backends(&self.spec).map(|(_, backend)| backend.address.ip());
        self.reach.forget_all_but(&addresses.collect());
        self.is_dirty = true;
    }

    /// Restores the former intent. What happened to the maps meanwhile is kept.
    pub fn take_back(&mut self, before: Self) {
        let (grace, offers) = (std::mem::take(&mut self.grace), std::mem::take(&mut self.offers));
        *self = Self { grace, offers, is_dirty: true, ..before };
    }

    /// A probe ended. Returns whether it changed the health.
    pub fn probed(&mut self, probed: Probed, now: Instant) -> bool {
        let target = self.find(&probed.backend).and_then(|(service, it)| self.target(service, it));
        if target.is_none_or(|target| target.address != probed.address) {
            return false; // removed, moved or renamed while it was probed
        }
        let Some(health_state) = self.health_states.get_mut(&probed.backend) else { return false };
        let has_changed = health_state.learn(probed, now);
        self.is_dirty |= has_changed;
        has_changed
    }

    /// Netlink's view of the next hops, whole.
    pub fn hops(&mut self, seen: BTreeMap<Path, HopState>) {
        self.is_dirty |= self.reach.learn(seen);
    }

    /// A route or a client's neighbour may have changed: flows are to look again.
    pub fn routing_changed(&mut self) {
        self.generation.routing_changed();
    }

    /// The interfaces and addresses of this host, as they are.
    pub fn links(&mut self, attached: Vec<Attached>, addresses: BTreeSet<IpAddr>) {
        self.is_dirty |= attached != self.attached || addresses != self.addresses;
        self.attached = attached;
        self.addresses = addresses;
    }

    /// Time passes: grace periods end, and routing changes become due.
    pub fn tick(&mut self, now: Instant) {
        let has_ended = self.grace.tick(now);
        let is_raised = self.generation.raise_if_due(now);
        self.is_dirty |= has_ended || is_raised;
    }

    /// When [`tick`](State::tick) will have something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        self.grace.due().into_iter().chain(self.generation.due()).min()
    }

    /// A step is taken from what the maps have: the grace period begins of what a pool names no more.
    pub fn applying(&mut self, op: &Op, have: &Snapshot, now: Instant) {
        self.offers.applying(op, have, now);
        self.grace.applying(op, have, now);
    }

    /// The maps were made for this, whatever the file says.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// The grace period is over: no packet reads what was in force before.
    pub fn end_grace(&mut self) {
        self.grace.end();
    }

    pub fn set_dirty(&mut self) {
        self.is_dirty = true;
    }

    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Everything that is known has been dealt with.
    pub fn set_clean(&mut self) {
        self.is_dirty = false;
    }
}

/// What others decide by.
impl State {
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn admin(&self, name: &BackendName) -> AdminState {
        self.admin.get(name).copied().unwrap_or_default()
    }

    pub fn health_state(&self, name: &BackendName) -> Option<&HealthState> {
        self.health_states.get(name)
    }

    /// `None`: not known yet. A service without a check takes its backends for up.
    pub fn health(&self, service: &Service, backend: &Backend) -> Option<Health> {
        if service.health.is_none() {
            return Some(Health::Up);
        }
        self.health_states.get(&BackendName::new(&service.name, &backend.name))?.health
    }

    /// What the backend is given. See [`compile`](super::compile).
    pub fn standing(&self, service: &Service, backend: &Backend) -> Standing {
        let is_up = self.health(service, backend) == Some(Health::Up);
        let is_ready = match self.admin(&BackendName::new(&service.name, &backend.name)) {
            AdminState::Maint => return Standing::Absent,
            AdminState::Drain => false,
            AdminState::Ready => true,
        };
        // Nothing else ends a UDP flow: its client would send to a dead backend for ever.
        if service.protocol == Protocol::Udp && !is_up {
            return Standing::Absent;
        }
        if is_ready && is_up && backend.weight > 0 && self.hop(self.path(service, backend)).is_some() {
            Standing::Eligible
        } else {
            Standing::Holding
        }
    }

    /// At this moment, were all flows in the table that the backend of this id can have?
    pub fn had_last_flow(&self, id: u32, at: Instant) -> bool {
        self.offers.are_over(id, at, GRACE_PERIOD)
    }

    /// How the end of a path is reached, if it is.
    pub fn hop(&self, path: Path) -> Option<Hop> {
        self.reach.hop(path, &self.attached)
    }

    /// How packets go to a backend. With full-nat, routes are looked up and probes are sent from the first of the
    /// service's sources of that family that this host has.
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

    /// What the maps for services and backends were made for.
    pub fn room(&self) -> Room {
        self.room
    }

    /// What packets may still be reading.
    pub fn grace(&self) -> &Grace {
        &self.grace
    }

    /// What the probes are to watch.
    pub fn targets(&self) -> Vec<Target> {
        backends(&self.spec).filter_map(|(service, backend)| self.target(service, backend)).collect()
    }

    /// `None`: the service has no check.
    pub fn target(&self, service: &Service, backend: &Backend) -> Option<Target> {
        let check = service.health.clone()?;
        let mut address = backend.address;
        address.set_port(check.port.unwrap_or(address.port()));
        let known = self.health(service, backend);
        let source = self.path(service, backend).from;
        Some(Target {
            backend: BackendName::new(&service.name, &backend.name),
            address,
            source,
            check,
            known,
        })
    }

    /// Whose next hops are to be known.
    pub fn paths(&self) -> BTreeSet<Path> {
        backends(&self.spec).map(|(service, backend)| self.path(service, backend)).collect()
    }

    /// The service and backend of a name.
    pub fn find(&self, name: &BackendName) -> Option<(&Service, &Backend)> {
        find(&self.spec, name)
    }
}

fn backends(spec: &Spec) -> impl Iterator<Item = (&Service, &Backend)> {
    spec.services.iter().flat_map(|service| service.backends.iter().map(move |backend| (service, backend)))
}

fn find<'a>(spec: &'a Spec, name: &BackendName) -> Option<(&'a Service, &'a Backend)> {
    let service = spec.services.iter().find(|service| service.name == name.service)?;
    let backend = service.backends.iter().find(|backend| backend.name == name.backend)?;
    Some((service, backend))
}
