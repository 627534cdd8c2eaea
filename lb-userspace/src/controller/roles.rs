//! The roles of database servers: which server is the primary of a service, and which replicas serve reads.
//!
//! ```text
//!   answers of checks ─▶ observed (one server) ─▶ election (one service) ─▶ fit: which servers get flows
//!                                                    ▲  │
//!                                   memory: terms, ──┘  └─▶ changes, for the log
//!                                   fences (saved)
//! ```
//!
//! No I/O and no clock: time is an argument.

mod election;
mod lag;
mod memory;
mod observed;
mod reads;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use self::{election::Claim, observed::Observed, reads::bytes_behind};
pub use self::{
    election::{Outcome, Refusal, Vacancy},
    lag::Lag,
    memory::{ClusterId, Fence, Forced, Holder, RoleMemory, ServiceMemory},
    reads::ReadRefusal,
};
use crate::{
    event::Health,
    health::dampener::Thresholds,
    probe::{Mark, Role, RoleReport},
    spec::RolePolicy,
};

/// A service with a role.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    /// Of the service.
    pub name: &'a str,
    pub policy: RolePolicy,
    pub thresholds: Thresholds,
    pub servers: Vec<Server>,
}

/// A backend of such a service.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub is_backup: bool,
    /// `None`: not known yet.
    pub health: Option<Health>,
}

/// Which flows a server gets, as far as its role decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Regular,
    /// Only if no regular one can serve. With `role = "replica"`, that is the primary.
    Backup,
    Unfit,
    /// It has not said enough yet.
    Unknown,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Roles {
    memory: RoleMemory,
    /// It differs from what was saved.
    is_unsaved: bool,
    /// By service and address.
    observed: BTreeMap<(String, SocketAddr), Observed>,
    elections: BTreeMap<String, Election>,
}

/// The last election of a service.
#[derive(Clone, Debug)]
struct Election {
    outcome: Outcome,
    since: Instant,
    /// Since when there is no primary, and new flows are refused.
    vacant_since: Option<Instant>,
}

/// The outcome of an election differs from the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub service: String,
    pub before: Outcome,
    pub after: Outcome,
    /// The last primary.
    pub last: Option<Holder>,
    /// The mark of the server that is elected.
    pub mark: Option<Mark>,
    /// How long there was no primary, if there is one again.
    pub vacant: Option<Duration>,
}

impl Roles {
    pub fn new(memory: RoleMemory) -> Self {
        Self { memory, ..Self::default() }
    }

    /// What is to be saved, if it has changed since it was saved.
    pub fn unsaved(&self) -> Option<&RoleMemory> {
        self.is_unsaved.then_some(&self.memory)
    }

    pub fn set_saved(&mut self) {
        self.is_unsaved = false;
    }

    pub fn memory(&self) -> &RoleMemory {
        &self.memory
    }

    /// A server that got new flows of a service before the daemon started. One that is not the primary that was remembered
    /// got them for another reason: the service had no role then.
    pub fn adopt(&mut self, cluster: &Cluster<'_>, address: SocketAddr, now: Instant) {
        let Some(role) = cluster.policy.wanted else { return };
        let last = self.memory.service(cluster.name).primary.map(|holder| holder.address);
        if role == Role::Primary && last != Some(address) {
            return;
        }
        self.observed.insert(key(cluster.name, address), Observed::adopted(role));
        if role == Role::Primary {
            let outcome = Outcome::Elected(address);
            let election = Election { outcome, since: now, vacant_since: None };
            self.elections.insert(cluster.name.to_owned(), election);
        }
    }

    /// A server has answered. The health in `cluster` is that after the answer.
    pub fn answered(&mut self, cluster: &Cluster<'_>, server: Server, report: &RoleReport, now: Instant) {
        self.learn_term(cluster.name, report);
        let observed = self.observed.entry(key(cluster.name, server.address)).or_default();
        observed.answered(report.clone(), cluster.thresholds, now);
        let lag = observed.lag(now);
        if cluster.policy.wanted == Some(Role::Replica) {
            let is_fit = self.read_refusal(cluster, server, report, lag).is_none();
            let observed = self.observed.entry(key(cluster.name, server.address)).or_default();
            observed.judged(is_fit, cluster.thresholds);
            if let (true, Some(id)) = (is_fit, report.mark.cluster()) {
                self.remember_cluster(cluster.name, ClusterId(id));
            }
        }
    }

    /// A server is down.
    pub fn went_down(&mut self, cluster: &Cluster<'_>, address: SocketAddr) {
        if let Some(observed) = self.observed.get_mut(&key(cluster.name, address)) {
            observed.went_down();
        }
    }

    /// The highest term of a cluster never falls.
    fn learn_term(&mut self, service: &str, report: &RoleReport) {
        let (Role::Primary, Some(id), Some(term)) = (report.role, report.mark.cluster(), report.mark.term())
        else {
            return;
        };
        let cluster = ClusterId(id);
        if self.memory.service(service).cluster.is_some_and(|own| own != cluster) {
            return;
        }
        // The word of a server that was never elected must not fill the memory.
        if !self.memory.services.values().any(|it| it.cluster == Some(cluster)) {
            return;
        }
        if self.memory.term(Some(cluster)) < Some(term) {
            self.memory.terms.insert(cluster, term);
            self.is_unsaved = true;
        }
    }

    fn remember_cluster(&mut self, service: &str, cluster: ClusterId) {
        let remembered = self.memory.services.entry(service.to_owned()).or_default();
        if remembered.cluster.is_none() {
            remembered.cluster = Some(cluster);
            self.is_unsaved = true;
        }
    }

    /// Forgets servers and services that are not among these.
    pub fn retain<'s, A>(&mut self, services: impl Iterator<Item = (&'s str, A)>)
    where
        A: Iterator<Item = SocketAddr>,
    {
        let (mut names, mut servers) = (BTreeSet::new(), BTreeSet::new());
        for (name, addresses) in services {
            names.insert(name);
            servers.extend(addresses.map(|address| key(name, address)));
        }
        self.observed.retain(|server, _| servers.contains(server));
        self.elections.retain(|service, _| names.contains(service.as_str()));
    }

    /// Services have other names. Each pair is the former name and the present one.
    pub fn rename(&mut self, pairs: &[(String, String)]) {
        if pairs.is_empty() {
            return;
        }
        let renamed = |name: String| {
            let pair = pairs.iter().find(|(before, _)| *before == name);
            pair.map_or(name, |(_, after)| after.clone())
        };
        let observed = std::mem::take(&mut self.observed).into_iter();
        self.observed = observed.map(|((name, at), it)| ((renamed(name), at), it)).collect();
        let elections = std::mem::take(&mut self.elections).into_iter();
        self.elections = elections.map(|(name, it)| (renamed(name), it)).collect();
        // A service of that name that is long gone may be remembered too.
        let is_overwritten = |name: &str| {
            pairs.iter().any(|(_, after)| after == name) && !pairs.iter().any(|(before, _)| before == name)
        };
        let services = std::mem::take(&mut self.memory.services).into_iter();
        let services = services.filter(|(name, _)| !is_overwritten(name));
        self.memory.services = services.map(|(name, it)| (renamed(name), it)).collect();
        self.is_unsaved = true;
    }

    /// Lets no server be the primary of this service until there is one that is newer than the last one. `since`: seconds
    /// since 1970. Returns false if there is a fence already.
    pub fn fence(&mut self, service: &str, since: u64) -> bool {
        let claimants = self.observed.iter().filter(|((name, _), it)| name == service && it.says_primary());
        let claimants: Vec<_> = claimants.map(|((_, address), _)| *address).collect();
        let remembered = self.memory.services.entry(service.to_owned()).or_default();
        if remembered.fence.is_some() {
            return false;
        }
        let term = remembered.cluster.and_then(|cluster| self.memory.terms.get(&cluster).copied());
        let last = remembered.primary.as_ref().map(|last| last.address);
        let fenced = BTreeSet::from_iter(claimants.into_iter().chain(last)).into_iter().collect();
        remembered.fence = Some(Fence { fenced, term, since });
        remembered.forced = None;
        self.is_unsaved = true;
        true
    }

    /// Ends the fence. Returns false if there is none.
    pub fn unfence(&mut self, service: &str) -> bool {
        let remembered = self.memory.services.get_mut(service);
        let is_ended = remembered.is_some_and(|remembered| remembered.fence.take().is_some());
        self.is_unsaved |= is_ended;
        is_ended
    }

    /// Makes a server that says primary the primary, whatever the others say. Returns whether it says so.
    pub fn force(&mut self, service: &str, address: SocketAddr) -> bool {
        let report = self.report(service, address).filter(|report| report.role == Role::Primary);
        let Some(mark) = report.map(|report| report.mark.clone()) else { return false };
        let cluster = mark.cluster().map(ClusterId);
        let term = self.memory.term(cluster);
        let remembered = self.memory.services.entry(service.to_owned()).or_default();
        *remembered = ServiceMemory {
            cluster,
            primary: Some(Holder::new(address, &mark)),
            fence: None,
            forced: Some(Forced { address, term }),
        };
        self.is_unsaved = true;
        true
    }

    /// The last election of a service: its outcome, and since when.
    pub fn election(&self, service: &str) -> Option<(&Outcome, Instant)> {
        let election = self.elections.get(service)?;
        Some((&election.outcome, election.vacant_since.unwrap_or(election.since)))
    }

    /// How far a server is behind: the age of its data, and bytes.
    pub fn lag(&self, service: &str, address: SocketAddr, now: Instant) -> (Option<Duration>, Option<u64>) {
        let Some(observed) = self.observed.get(&key(service, address)) else { return (None, None) };
        let Some(report) = observed.report.as_ref() else { return (None, None) };
        let primary = self.known_primary(service, report.mark.cluster().map(ClusterId));
        let bytes = primary.and_then(|primary| bytes_behind(&primary.mark, &report.mark));
        (observed.lag(now), bytes)
    }

    /// Why a server that says primary is refused, if it is.
    pub fn refusal(&self, cluster: &Cluster<'_>, address: SocketAddr) -> Option<Refusal> {
        let claims = self.claims(cluster);
        let claim = claims.iter().find(|claim| claim.address == address)?;
        election::refusal(claim, &claims, &self.memory, &self.memory.service(cluster.name))
    }

    /// The role that counts for a server. `None`: unknown.
    pub fn role(&self, service: &str, address: SocketAddr) -> Option<Role> {
        self.observed.get(&key(service, address))?.role
    }

    /// Has it said its role often enough in a row for it to count?
    pub fn is_steady(&self, service: &str, address: SocketAddr) -> bool {
        let observed = self.observed.get(&key(service, address));
        observed.is_some_and(|it| it.report.as_ref().is_some_and(|report| it.role == Some(report.role)))
    }

    /// Holds the election of a service. Returns the change, if there is one.
    pub fn elect(&mut self, cluster: &Cluster<'_>, now: Instant) -> Option<Change> {
        let before = self.elections.get(cluster.name).map(|election| election.outcome.clone());
        let incumbent = self.primary(cluster.name);
        let claims = self.claims(cluster);
        let is_alone = claims.len() == 1;
        let are_all_known = cluster.servers.iter().all(|server| self.is_known(cluster.name, server));
        let memory = self.memory.service(cluster.name);
        // A daemon that has just started relies on what it found in the maps until the primary answers.
        let is_adopted = incumbent.filter(|address| self.is_adopted(cluster, *address));
        let outcome = match is_adopted {
            Some(address) if claims.is_empty() && memory.fence.is_none() => Outcome::Elected(address),
            Some(_) | None => election::elect(&claims, &self.memory, &memory, incumbent, are_all_known),
        };
        self.remember(cluster.name, &outcome, is_alone);
        if before.as_ref() == Some(&outcome) {
            return None;
        }
        let (mark, vacant) = self.put(cluster, &outcome, now);
        let before = before.unwrap_or(Outcome::Vacant(Vacancy::Unknown));
        let last = memory.primary;
        Some(Change { service: cluster.name.to_owned(), before, after: outcome, last, mark, vacant })
    }

    /// Puts an outcome into force. Returns the mark of the primary, and how long there was none.
    fn put(
        &mut self,
        cluster: &Cluster<'_>,
        after: &Outcome,
        now: Instant,
    ) -> (Option<Mark>, Option<Duration>) {
        let since_before = self.elections.get(cluster.name).and_then(|election| election.vacant_since);
        let (vacant_since, vacant) = match after {
            Outcome::Elected(_) => (None, since_before.map(|since| now.saturating_duration_since(since))),
            Outcome::Vacant(_) => (Some(since_before.unwrap_or(now)), None),
        };
        let mark = match after {
            Outcome::Elected(address) => self.report(cluster.name, *address).map(|it| it.mark.clone()),
            Outcome::Vacant(_) => None,
        };
        let election = Election { outcome: after.clone(), since: now, vacant_since };
        self.elections.insert(cluster.name.to_owned(), election);
        (mark, vacant)
    }

    /// Remembers the primary. Its election ends a fence, and a choice of the operator that is no longer needed.
    fn remember(&mut self, service: &str, outcome: &Outcome, is_alone: bool) {
        let Outcome::Elected(address) = outcome else { return };
        let Some(report) = self.report(service, *address).cloned() else { return };
        let mark = &report.mark;
        let remembered = self.memory.services.entry(service.to_owned()).or_default();
        let before = remembered.clone();
        remembered.primary = Some(Holder::new(*address, mark));
        remembered.cluster = mark.cluster().map(ClusterId).or(remembered.cluster);
        remembered.fence = None;
        remembered.forced = remembered.forced.filter(|forced| forced.address == *address && !is_alone);
        self.is_unsaved |= *remembered != before;
        self.learn_term(service, &report);
    }

    /// Which flows a server gets.
    pub fn fit(&self, service: &str, policy: &RolePolicy, address: SocketAddr, is_backup: bool) -> Fit {
        let regular = if is_backup { Fit::Backup } else { Fit::Regular };
        match policy.wanted {
            None => regular,
            Some(Role::Primary) if self.primary(service) == Some(address) => Fit::Regular,
            Some(Role::Primary) => Fit::Unfit,
            Some(Role::Replica) => match self.observed.get(&key(service, address)) {
                Some(Observed { serves_reads: Some(true), role: Some(Role::Primary), .. }) => Fit::Backup,
                Some(Observed { serves_reads: Some(true), .. }) => Fit::Regular,
                Some(Observed { serves_reads: Some(false), .. }) => Fit::Unfit,
                Some(Observed { serves_reads: None, .. }) | None => Fit::Unknown,
            },
        }
    }

    /// The elected primary of a service.
    pub fn primary(&self, service: &str) -> Option<SocketAddr> {
        match &self.elections.get(service)?.outcome {
            Outcome::Elected(address) => Some(*address),
            Outcome::Vacant(_) => None,
        }
    }

    /// The last answer of a server.
    pub fn report(&self, service: &str, address: SocketAddr) -> Option<&RoleReport> {
        self.observed.get(&key(service, address))?.report.as_ref()
    }

    fn is_known(&self, service: &str, server: &Server) -> bool {
        match server.health {
            Some(Health::Up) => self.report(service, server.address).is_some(),
            Some(Health::Down) => true,
            None => false,
        }
    }

    /// Is it up and primary only because the maps said so?
    fn is_adopted(&self, cluster: &Cluster<'_>, address: SocketAddr) -> bool {
        let is_up = cluster.servers.iter().any(|it| it.address == address && it.health == Some(Health::Up));
        let observed = self.observed.get(&key(cluster.name, address));
        is_up && observed.is_some_and(|it| it.role == Some(Role::Primary) && it.report.is_none())
    }

    fn claims(&self, cluster: &Cluster<'_>) -> Vec<Claim<'_>> {
        let claim = |server: &Server| {
            let observed = self.observed.get(&key(cluster.name, server.address))?;
            let report = observed.report.as_ref().filter(|report| report.role == Role::Primary)?;
            let is_steady = server.health == Some(Health::Up) && observed.role == Some(Role::Primary);
            Some(Claim { address: server.address, mark: &report.mark, is_steady })
        };
        cluster.servers.iter().filter_map(claim).collect()
    }

    /// The primary that this service knows; otherwise that of the same cluster in another service.
    fn known_primary(&self, service: &str, cluster: Option<ClusterId>) -> Option<&RoleReport> {
        let of = |name: &str| self.report(name, self.primary(name)?);
        of(service).or_else(|| {
            let others = self.elections.keys().filter_map(|name| of(name));
            cluster.and_then(|id| others.into_iter().find(|it| it.mark.cluster() == Some(id.0)))
        })
    }
}

fn key(service: &str, address: SocketAddr) -> (String, SocketAddr) {
    (service.to_owned(), address)
}
