//! Which backends of a service get flows, and how many of them count for its quorum.
//!
//! A pool (a service's backends of one family) uses one tier of them: the regular backends if one of those is available,
//! else the backups if one of those is, else the regular ones again. Candidates are the backends of the tier that are
//! ready, have a weight above 0 and a known next hop, and were checked. A candidate that is up is available.
//!
//! If too few candidates are available, the pool is in panic (Envoy's word): it is more likely that the checks fail than that
//! most servers do, and the few left would be overloaded. All candidates get flows, whatever their health.

use lb_common::net::Protocol;

use super::State;
use crate::{
    controller::roles::Fit,
    event::{Health, HopState, Path},
    probe::{Role, WeightPercent},
    spec::{AdminState, Backend, BackendName, OnDown, OnRoleChange, Percent, Service, rules::Family},
};

/// Which flows a backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None: the backend has no id.
    Absent,
    /// Existing flows only.
    Holding,
    /// Existing and new flows.
    Eligible,
    /// The same, although it is down: its pool is in panic.
    EligibleInPanic,
}

/// The availability of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Available backends of the tiers in use, in both families together.
    pub available: u32,
    /// They reach the quorum.
    pub is_ready: bool,
}

/// What decides on the standing of one backend.
struct Condition {
    /// The operator's or the agent's, whichever is stricter.
    admin: AdminState,
    health: Option<Health>,
    /// What its role allows.
    fit: Fit,
    /// Of the tier that is used if no regular backend is available.
    is_backup: bool,
    /// Ready, weight above 0, next hop known, checked, and fit.
    is_candidate: bool,
}

/// A tier of a pool.
#[derive(Clone, Copy, Debug, Default)]
struct Tier {
    available: u32,
    candidates: u32,
}

/// The tiers of a pool.
#[derive(Clone, Copy, Debug, Default)]
struct Pool {
    regular: Tier,
    backup: Tier,
}

impl State {
    /// The standing of each backend of a service, in their order. See [`compile`](super::super::compile).
    pub fn standings(&self, service: &Service) -> Vec<Standing> {
        let conditions = self.conditions(service);
        let pools = pools(service, &conditions);
        let threshold = service.availability.panic_threshold;
        let backends = service.backends.iter().zip(&conditions);
        backends
            .map(|(backend, condition)| {
                let pool = &pools[place(backend)];
                let is_forced = pool.is_in_panic(threshold) && pool.uses_backups() == condition.is_backup;
                condition.standing(service, is_forced)
            })
            .collect()
    }

    /// How many backends of a service are available, and whether that is enough.
    pub fn readiness(&self, service: &Service) -> Readiness {
        let pools = pools(service, &self.conditions(service));
        let available = pools.iter().map(|pool| pool.in_use().available).sum();
        Readiness { available, is_ready: available >= service.availability.quorum }
    }

    /// The families in which the health of a service's backends is ignored.
    pub fn families_in_panic(&self, service: &Service) -> Vec<Family> {
        let threshold = service.availability.panic_threshold;
        if threshold == Percent(0) {
            return Vec::new();
        }
        let pools = pools(service, &self.conditions(service));
        let pools = Family::ALL.into_iter().zip(pools);
        pools.filter(|(_, pool)| pool.is_in_panic(threshold)).map(|(family, _)| family).collect()
    }

    /// Is it known of each backend of a service whether it can get flows? At a start, this takes a moment.
    pub fn is_settled(&self, service: &Service) -> bool {
        service.backends.iter().all(|backend| match self.health(service, backend) {
            Some(Health::Up) => self.is_reach_known(self.path(service, backend)),
            Some(Health::Down) => true,
            None => false,
        })
    }

    fn is_reach_known(&self, path: Path) -> bool {
        self.hop(path).is_some()
            || match self.reach.seen(path) {
                Some(
                    HopState::Resolved(_) | HopState::Outside { .. } | HopState::Local | HopState::NoRoute,
                ) => true,
                Some(HopState::Unresolved { .. }) | None => false,
            }
    }

    fn conditions(&self, service: &Service) -> Vec<Condition> {
        service.backends.iter().map(|backend| self.condition(service, backend)).collect()
    }

    fn condition(&self, service: &Service, backend: &Backend) -> Condition {
        let name = BackendName::new(&service.name, &backend.name);
        let agent = self.agent(service, &name);
        let admin = self.admin(&name).max(agent.admin);
        let health = self.health(service, backend);
        let can_serve = admin == AdminState::Ready
            && backend.weight > 0
            && agent.weight > WeightPercent(0)
            && self.hop(self.path(service, backend)).is_some();
        let fit = self.fit(service, backend);
        let is_fit = matches!(fit, Fit::Regular | Fit::Backup);
        Condition {
            admin,
            health,
            fit,
            is_backup: self.is_backup(service, backend),
            is_candidate: can_serve && health.is_some() && is_fit,
        }
    }
}

impl Condition {
    /// `is_forced`: candidates get flows whatever their health.
    fn standing(&self, service: &Service, is_forced: bool) -> Standing {
        if self.admin == AdminState::Maint {
            return Standing::Absent;
        }
        let is_up = self.health == Some(Health::Up);
        match (self.is_candidate, is_up) {
            (true, true) => Standing::Eligible,
            (true, false) if is_forced => Standing::EligibleInPanic,
            (true | false, _) if self.loses_flows(service) => Standing::Absent,
            (true | false, _) => Standing::Holding,
        }
    }

    fn loses_flows(&self, service: &Service) -> bool {
        // A replica that is down has lost its health, not its role.
        let has_lost_role = self.fit == Fit::Unfit
            && !(service.role.wanted == Some(Role::Replica) && self.health != Some(Health::Up));
        if has_lost_role {
            return service.role.on_change == OnRoleChange::Reset;
        }
        match (service.protocol, service.availability.on_down) {
            // Nothing else ends a UDP flow: its client would go on sending to a dead backend.
            (Protocol::Udp, OnDown::Keep | OnDown::Reset) => self.health != Some(Health::Up),
            (Protocol::Tcp, OnDown::Keep) => false,
            (Protocol::Tcp, OnDown::Reset) => self.health == Some(Health::Down),
        }
    }
}

impl Tier {
    fn add(&mut self, condition: &Condition) {
        let is_up = condition.health == Some(Health::Up);
        self.candidates += u32::from(condition.is_candidate);
        self.available += u32::from(condition.is_candidate && is_up);
    }
}

impl Pool {
    const fn uses_backups(&self) -> bool {
        let no_regular_one_could = self.regular.candidates == 0;
        self.regular.available == 0 && (self.backup.available > 0 || no_regular_one_could)
    }

    const fn in_use(&self) -> &Tier {
        if self.uses_backups() { &self.backup } else { &self.regular }
    }

    fn is_in_panic(&self, threshold: Percent) -> bool {
        let tier = self.in_use();
        threshold.exceeds(tier.available, tier.candidates)
    }
}

/// The pools of a service, in the order of [`Family::ALL`].
fn pools(service: &Service, conditions: &[Condition]) -> [Pool; Family::ALL.len()] {
    let mut pools = [Pool::default(); Family::ALL.len()];
    for (backend, condition) in service.backends.iter().zip(conditions) {
        let pool = &mut pools[place(backend)];
        let tier = if condition.is_backup { &mut pool.backup } else { &mut pool.regular };
        tier.add(condition);
    }
    pools
}

/// The place of a backend's family in [`Family::ALL`].
const fn place(backend: &Backend) -> usize {
    Family::of(backend.address.ip()) as usize
}
