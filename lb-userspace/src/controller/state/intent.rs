//! Another intent: what is kept of the former one, and how it is restored.

use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Instant};

use super::{HealthState, Scope, State, backends, reach::Reach, slow_starts::SlowStarts};
use crate::{
    controller::{
        identity::{self, Former},
        roles::Roles,
    },
    event::Health,
    shared::Shared,
    spec::{AdminState, BackendName, Service, Spec},
};

/// The intent, and what depends on it, before [`State::set_intent`].
#[derive(Debug)]
pub struct Replaced {
    spec: Arc<Spec>,
    places: Arc<BTreeMap<String, usize>>,
    backends: usize,
    slots: u64,
    admin: BTreeMap<BackendName, AdminState>,
    slow_starts: SlowStarts,
    roles: Roles,
    reach: Arc<Reach>,
    health: ReplacedHealth,
    dirty: Option<Scope>,
    have_watches_changed: bool,
}

#[derive(Debug)]
enum ReplacedHealth {
    All(Arc<BTreeMap<BackendName, HealthState>>),
    /// What the backends of these services have instead of their former states.
    Of {
        services: Vec<Shared<Service>>,
        former: BTreeMap<BackendName, HealthState>,
    },
}

impl Default for ReplacedHealth {
    fn default() -> Self {
        Self::Of { services: Vec::new(), former: BTreeMap::new() }
    }
}

impl State {
    /// Sets a new intent. A backend keeps its health and its slow start as long as it is the same one, whatever its
    /// name. Counts follow the name. Returns what was replaced.
    pub fn set_intent(
        &mut self,
        spec: Spec,
        admin: BTreeMap<BackendName, AdminState>,
        now: Instant,
    ) -> Replaced {
        let mut replaced = Replaced {
            spec: std::mem::replace(&mut self.spec, Arc::new(spec)),
            places: Arc::clone(&self.places),
            backends: self.backends,
            slots: self.slots,
            admin: std::mem::replace(&mut self.admin, admin),
            slow_starts: self.slow_starts.clone(),
            roles: self.roles.clone(),
            reach: Arc::clone(&self.reach),
            health: ReplacedHealth::default(),
            dirty: self.dirty.clone(),
            have_watches_changed: self.have_watches_changed,
        };
        let (before, spec) = (&replaced.spec, Arc::clone(&self.spec));
        if before.hash != spec.hash {
            self.set_dirty(Scope::All);
        }
        replaced.health = if identity::are_same(&before.services, &spec.services) {
            self.set_services(before, &spec, now)
        } else {
            self.set_all_services(before, &spec, now)
        };
        self.compare_admin(&replaced.admin, now);
        self.advance_slow_starts(now);
        self.keep_roles(&renamed(before, &spec), now);
        replaced
    }

    /// Services have come, gone or moved. Returns the health states that were replaced.
    fn set_all_services(&mut self, before: &Spec, spec: &Spec, now: Instant) -> ReplacedHealth {
        let formers = Former::in_spec(before).of_each(&spec.services);
        let formers = formers.into_iter().map(|former| former.map(|place| &*before.services[place]));
        let health_states = std::mem::take(&mut self.health_states);
        self.keep_health(&health_states, formers.zip(spec.services.iter().map(Deref::deref)), now);
        let addresses = backends(spec).map(|(_, backend)| backend.address.ip());
        Arc::make_mut(&mut self.reach).retain_addresses(&addresses.collect());
        let places = spec.services.iter().enumerate().map(|(place, it)| (it.name.clone(), place));
        self.places = Arc::new(places.collect());
        self.backends = backends(spec).count();
        self.slots = spec.services.iter().map(|service| service.most_slots()).sum();
        self.have_watches_changed = true;
        self.set_dirty(Scope::All);
        ReplacedHealth::All(health_states)
    }

    /// Only what belongs to single services has changed. Returns the health states that were replaced.
    fn set_services(&mut self, before: &Spec, after: &Spec, now: Instant) -> ReplacedHealth {
        let pairs = before.services.iter().zip(&after.services);
        let changed: Vec<_> = pairs.filter(|(old, new)| old != new).collect();
        for (old, new) in &changed {
            self.backends = self.backends + new.backends.len() - old.backends.len();
            self.slots = self.slots + new.most_slots() - old.most_slots();
        }
        let moved: Vec<_> = changed.iter().filter(|(old, new)| may_move_health(old, new)).collect();
        let mut former = BTreeMap::new();
        if !moved.is_empty() {
            let health_states = Arc::make_mut(&mut self.health_states);
            let names = moved.iter().flat_map(|(old, _)| names(old));
            former = names.filter_map(|name| health_states.remove_entry(&name)).collect();
            self.keep_health(&former, moved.iter().map(|(old, new)| (Some(&***old), &***new)), now);
        }
        self.have_watches_changed |= changed.iter().any(|(old, new)| old.health != new.health);
        self.have_watches_changed |= !moved.is_empty();
        self.set_dirty(Scope::Services(changed.iter().map(|(_, new)| new.name.clone()).collect()));
        ReplacedHealth::Of { services: moved.iter().map(|(_, new)| (*new).clone()).collect(), former }
    }

    /// The services of backends with another admin state need another schedule. A backend that is ready again starts
    /// slowly.
    fn compare_admin(&mut self, before: &BTreeMap<BackendName, AdminState>, now: Instant) {
        let changed: Vec<_> = differences(before, &self.admin).cloned().collect();
        let was_ready = |name| before.get(name).copied().unwrap_or_default() == AdminState::Ready;
        for name in changed.iter().filter(|name| !was_ready(name)) {
            if self.admin(name) == AdminState::Ready {
                self.begin_slow_start(name, now);
            }
        }
        self.set_dirty(Scope::Services(changed.into_iter().map(|name| name.service).collect()));
    }

    /// Gives the backends of services the health and the slow starts that they had, in these former services.
    fn keep_health<'a>(
        &mut self,
        health_states: &BTreeMap<BackendName, HealthState>,
        services: impl Iterator<Item = (Option<&'a Service>, &'a Service)>,
        now: Instant,
    ) {
        let kept = Arc::make_mut(&mut self.health_states);
        let mut slow_starts = self.slow_starts.take(|name| health_states.contains_key(name));
        for (former, service) in services {
            let former = former.map(|old| (old, identity::by_address(old)));
            for backend in &service.backends {
                let name = BackendName::new(&service.name, &backend.name);
                let same =
                    former.as_ref().and_then(|(old, backends)| Some((old, *backends.get(&backend.address)?)));
                let was = same.map(|(old, it)| BackendName::new(&old.name, &it.name));
                let seen = was.as_ref().and_then(|was| health_states.get(was));
                let counts = match health_states.get(&name) {
                    Some(counted) => counted.counts.clone(),
                    None => self.former_counts.take(&name),
                };
                let mut health_state = HealthState::of(seen, counts, now);
                if same.is_some_and(|(old, _)| old.health.is_none()) {
                    // Without a check it was assumed to be up. It stays up until the check fails.
                    health_state.health = Some(Health::Up);
                }
                if let Some(slow_start) = was.and_then(|was| slow_starts.remove(&was)) {
                    self.slow_starts.put(name.clone(), slow_start);
                } else if former.is_some() && same.is_none() {
                    // Added to a running service. Its first check, which is due at once, decides whether it gets flows.
                    self.slow_starts.begin(name.clone(), service.availability.slow_start, now);
                }
                kept.insert(name, health_state);
            }
        }
        let gone = health_states.iter().filter(|(name, _)| !kept.contains_key(*name));
        for (name, health_state) in gone {
            self.former_counts.keep(name.clone(), health_state.counts.clone(), self.room.past_names());
        }
    }

    /// Restores the former intent.
    pub fn restore(&mut self, replaced: Replaced) {
        self.spec = replaced.spec;
        self.places = replaced.places;
        self.backends = replaced.backends;
        self.slots = replaced.slots;
        self.admin = replaced.admin;
        self.slow_starts = replaced.slow_starts;
        self.roles = replaced.roles;
        self.role_changes.clear();
        self.reach = replaced.reach;
        let undone: BTreeMap<_, _> = match replaced.health {
            ReplacedHealth::All(health_states) => {
                Arc::unwrap_or_clone(std::mem::replace(&mut self.health_states, health_states))
            }
            ReplacedHealth::Of { services, former } => {
                let health_states = Arc::make_mut(&mut self.health_states);
                let added = services.iter().flat_map(|service| names(service));
                let undone = added.filter_map(|name| health_states.remove_entry(&name)).collect();
                health_states.extend(former);
                undone
            }
        };
        for (name, health_state) in undone {
            if !self.health_states.contains_key(&name) {
                self.former_counts.keep(name, health_state.counts, self.room.past_names());
            }
        }
        self.dirty = replaced.dirty;
        self.have_watches_changed = replaced.have_watches_changed;
    }
}

/// The services whose names have changed: the former name, and the present one.
fn renamed(before: &Spec, after: &Spec) -> Vec<(String, String)> {
    if identity::are_same(&before.services, &after.services) {
        return Vec::new();
    }
    let formers = Former::in_spec(before).of_each(&after.services);
    let pairs = formers.iter().zip(&after.services).filter_map(|(former, new)| {
        let old = &before.services[(*former)?];
        (old.name != new.name).then(|| (old.name.clone(), new.name.clone()))
    });
    pairs.collect()
}

/// May this change of a service move a health state from one backend to another?
fn may_move_health(old: &Service, new: &Service) -> bool {
    let servers = |service: &Service| -> Vec<_> {
        service.backends.iter().map(|backend| (backend.name.clone(), backend.address)).collect()
    };
    old.health.is_none() || servers(old) != servers(new)
}

/// The names whose admin state differs.
fn differences<'a>(
    before: &'a BTreeMap<BackendName, AdminState>,
    after: &'a BTreeMap<BackendName, AdminState>,
) -> impl Iterator<Item = &'a BackendName> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let changed = after.iter().filter(|(name, state)| before.get(name) != Some(state));
    gone.chain(changed.map(|(name, _)| name))
}

fn names(service: &Service) -> impl Iterator<Item = BackendName> {
    service.backends.iter().map(|backend| BackendName::new(&service.name, &backend.name))
}
