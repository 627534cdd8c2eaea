//! The task that owns the state and the datapath, and keeps the maps up to date with the intent.
//!
//! ```text
//!   events ─absorb─▶ State ─compile─▶ want ─diff (have, want)─▶ plan ─apply─▶ datapath
//!                      │                        ▲                               │
//!                      └▶ watched targets, hops └──────────── have ◀──observe───┘
//! ```
//!
//! Start, reload, health changes, drain and repair all take this path. The contents of the maps are read back at start,
//! after a failure and every [`RESYNC`]. Between those they are known, because nothing else writes to the maps.

mod announce;
mod answer;
mod changes;
mod cluster;
pub mod compile;
pub mod diff;
mod edit;
mod ejections;
mod fill;
#[cfg(test)]
mod fixture;
mod host;
mod identity;
mod index;
mod intent;
mod listing;
pub mod local_host;
pub mod membership;
mod metrics;
mod pace;
mod pinned;
mod plan;
mod presence;
mod readiness;
mod reconcile;
mod removal;
mod requests;
mod role_changes;
mod role_requests;
pub mod roles;
mod room;
mod selection;
pub mod snapshot;
pub mod state;
mod sums;
#[cfg(test)]
mod tests;
pub mod track;
mod transaction;
mod walk;
mod warned;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use log::{error, info, warn};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};

pub use self::host::Host;
use self::{
    announce::Announce,
    cluster::Member,
    ejections::Ejections,
    index::Indexed,
    intent::Intent,
    membership::Membership,
    metrics::Scrapes,
    pace::Pace,
    presence::LastPresence,
    readiness::LastReadiness,
    requests::PendingRequest,
    roles::RoleMemory,
    state::{Scope, State},
    track::Track,
    walk::Walks,
};
use crate::{
    cluster::copy::Copy,
    datapath::{Attached, Capacity, Datapath},
    event::{Event, Health, Path, Probed, Reply, Since, Target},
    named::Named as _,
    probe::{ProbeOutcome, exec},
    spec::{Spec, overlay::Overlay},
};

/// How often the maps are read back and repaired when nothing else requires it.
pub const RESYNC: Duration = Duration::from_secs(10);
/// The time from a failure to the next attempt.
pub const RETRY: Duration = Duration::from_secs(1);
/// The longest wait for an event.
const IDLE: Duration = RESYNC;
/// Maximum number of pending requests.
pub const WAITING_MAX: usize = 256;

/// Why the loop ended.
#[derive(Debug)]
pub enum Ending {
    /// The daemon is stopping. Traffic continues.
    Stopped,
    /// The data plane is to be removed, and the request answered afterwards.
    Detach(Reply<()>),
}

/// The inputs of a start.
#[derive(Debug)]
pub struct Start {
    pub config: PathBuf,
    pub spec: Spec,
    pub overlay: Overlay,
    /// This node's copy of what is stored. `None`: there is no `[cluster]`.
    pub copy: Option<Copy>,
    /// What is remembered of database clusters.
    pub roles: RoleMemory,
    /// This node was drained.
    pub is_drained: bool,
    pub capacity: Capacity,
    /// Warnings that stay until the next start.
    pub warnings: Vec<String>,
    pub since: Since,
}

/// What other tasks receive from the controller.
#[derive(Debug)]
pub struct Watched {
    /// The targets of health checks.
    pub targets: watch::Sender<Vec<Target>>,
    /// The paths whose next hops netlink resolves and keeps up to date.
    pub hops: watch::Sender<BTreeSet<Path>>,
    /// The interfaces that packets may leave through.
    pub interfaces: watch::Sender<Vec<Attached>>,
    /// The number of the last grace period that was requested. Its end is reported as an event.
    pub grace_periods: watch::Sender<u64>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Controller<D, H> {
    datapath: D,
    host: H,
    watched: Watched,
    config: PathBuf,
    capacity: Capacity,
    /// Warnings that stay until the next start.
    start_warnings: Vec<String>,
    since: Since,
    /// When the current turn began.
    at: Instant,
    /// The spec at start. Its interfaces, limits, API and metrics apply until the daemon stops.
    running: Spec,
    intent: Intent,
    state: State,
    /// The ephemeral ports of this host.
    local_ports: (u16, u16),
    /// The contents of the maps.
    have: Indexed,
    trust: Trust,
    pace: Pace,
    /// How often the maps were changed.
    map_updates: u64,
    walks: Walks,
    scrapes: Scrapes,
    waiting: VecDeque<PendingRequest>,
    detach: Option<Reply<()>>,
    reload: Reload,
    presence: LastPresence,
    track: Track,
    announce: Announce,
    membership: Membership,
    /// `None`: there is no `[cluster]`.
    member: Option<Member>,
    readiness: LastReadiness,
    ejections: Ejections,
    /// When each warning began, and whether it was logged.
    warned: BTreeMap<String, (Instant, bool)>,
    /// When warnings were last searched for.
    warnings_searched: Instant,
    /// Something has changed since.
    warnings_outdated: bool,
    links_changed: bool,
    /// Everything was reconciled, or links have changed, since the end of the last turn.
    all_changed: bool,
    /// When to save the roles again, if that failed.
    roles_retry: Option<Instant>,
    /// Why interfaces and pins could not be refreshed.
    host_failure: Option<String>,
}

/// Whether `have` can be relied on.
#[derive(Debug)]
enum Trust {
    /// It is what the maps contain: there is no other writer.
    Full,
    /// It must be read back before the next plan.
    Stale,
    /// The last plan failed. After a pause, the maps are read back and repaired.
    Failed { error: String, retry: Instant },
}

/// The result of the last reload. The start counts as one.
#[derive(Debug)]
struct Reload {
    error: Option<String>,
    succeeded: SystemTime,
}

/// Handles events and keeps the maps up to date, until shutdown or until the data plane is to be removed.
pub async fn run<D: Datapath, H: Host>(
    controller: &mut Controller<D, H>,
    events: &mut mpsc::Receiver<Event>,
    shutdown: impl Future<Output = ()>,
) -> Ending {
    let mut shutdown = pin!(shutdown);
    let mut resync = interval(RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = controller.due(now()).into();
        tokio::select! {
            () = &mut shutdown => return Ending::Stopped,
            Some(event) = events.recv() => controller.absorb(event, now()),
            _ = resync.tick() => {
                controller.mark_stale();
                controller.retry_stored(now());
            }
            () = sleep_until(due) => {}
        }
        while let Ok(event) = events.try_recv() {
            controller.absorb(event, now());
        }
        controller.turn(now());
        if let Some(reply) = controller.detach.take() {
            return Ending::Detach(reply);
        }
    }
}

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Takes over the contents of the maps, without changing them yet.
    pub fn adopt(
        mut datapath: D,
        mut host: H,
        watched: Watched,
        start: Start,
        now: Instant,
    ) -> anyhow::Result<Self> {
        let have = Indexed::from(datapath.observe()?);
        let local_ports = host.local_ports()?;
        let (intent, applied) = Intent::of(Arc::new(start.spec.clone()), &start.overlay);
        applied.log.iter().for_each(|line| info!("{line}"));
        let device = start.spec.announce.as_ref().map(|it| it.device.clone());
        let member = start.spec.cluster.as_ref().zip(start.copy).map(|(it, copy)| Member::new(it, copy));

        let mut controller = Self {
            datapath,
            host,
            watched,
            config: start.config,
            capacity: start.capacity,
            start_warnings: start.warnings,
            since: start.since,
            at: now,
            running: start.spec,
            intent,
            state: State::new(applied.spec, applied.admin_states, start.roles, now),
            presence: LastPresence::unknown(now),
            track: Track::new(start.is_drained),
            announce: Announce::new(device, now),
            membership: Membership::default(),
            member,
            local_ports,
            have,
            trust: Trust::Full,
            pace: Pace::new(now),
            map_updates: 0,
            walks: Walks::new(now),
            scrapes: Scrapes::default(),
            waiting: VecDeque::new(),
            detach: None,
            reload: Reload { error: None, succeeded: start.since.time },
            readiness: LastReadiness::new(now),
            ejections: Ejections::new(now),
            warned: BTreeMap::new(),
            warnings_searched: now,
            warnings_outdated: false,
            links_changed: false,
            all_changed: false,
            roles_retry: None,
            host_failure: None,
        };
        if controller.intent.overlay != start.overlay && controller.member.is_none() {
            controller.save_without_overridden();
        }
        controller.compare_with_file();
        controller.report();
        controller.state.set_brings_addresses(controller.running.announce.is_some());
        controller.refresh_host()?;
        exec::PROGRAMS.set_most(controller.intent.file.programs_at_once);
        controller.state.set_room(controller.capacity.room);
        controller.state.adopt(&controller.have, now);
        controller.presence.update(&controller.state, now);
        controller.readiness.adopt(&controller.state, now);
        // Routes may have changed while no daemon ran, and a count finds flows of removed backends.
        controller.state.routing_changed();
        controller.walks.count_since(now, now);
        Ok(controller)
    }

    /// Records an event. [`turn`](Self::turn) acts on it.
    pub fn absorb(&mut self, event: Event, now: Instant) {
        match event {
            Event::Probed(probed) => self.probed(probed, now),
            Event::Hops(hops) => self.state.hops(hops),
            Event::RoutingChanged => self.state.routing_changed(),
            Event::LinksChanged | Event::PinsRemoved => self.links_changed = true,
            Event::GracePeriodEnded(round) => self.grace_period_ended(round, now),
            Event::GroupChanged => self.all_changed = true,
            Event::Cluster(news) => {
                if let Some(member) = &mut self.member {
                    member.hear(news);
                }
            }
            Event::Request(request) => self.queue(request, now),
        }
    }

    /// Acts on the state: updates the maps, walks one chunk of the flow tables, answers requests, and collects one
    /// chunk of a scrape.
    pub fn turn(&mut self, now: Instant) {
        self.at = now;
        let links_changed = std::mem::take(&mut self.links_changed);
        if links_changed {
            self.refresh_host_or_log();
        }
        self.state.tick(now);
        if let Some(round) = self.state.begin_grace_period(now) {
            self.watched.grace_periods.send_replace(round);
        }
        self.all_changed |= links_changed;
        self.keep_quiet(now);
        let is_confirming = self.readiness.due().is_some_and(|due| due <= now);
        if (self.may_differ() || is_confirming)
            && !self.is_waiting_for_retry(now)
            && !self.is_waiting_for_others(now)
        {
            self.pace.take(now);
            self.reconcile_or_warn(now);
        }
        self.tell_role_changes();
        self.save_roles_or_warn(now);
        self.look_at_ejections_if_due(now);
        self.walks.expire_if_due(now);
        if let Err(error) = self.walks.advance(&mut self.datapath, &self.have) {
            warn!("{error:#}");
        }
        self.take_cluster_news(now);
        self.answer(now);
        self.publish_view(now);
        // After the answers, because commands reconcile, too; and a change is not delayed by its warnings.
        let all_changed = std::mem::take(&mut self.all_changed);
        if all_changed {
            self.presence.update(&self.state, now);
        }
        self.tell_others_if_due(all_changed, now);
        if all_changed || self.next_warning().is_some_and(|due| due <= now) {
            self.log_warnings(now);
        }
        self.advance_scrape();
    }

    /// Something else may have changed the maps.
    pub fn mark_stale(&mut self) {
        self.track.repeat();
        if matches!(self.trust, Trust::Full) {
            self.trust = Trust::Stale;
        }
        self.links_changed = true;
    }

    /// May the maps differ from the state?
    fn may_differ(&self) -> bool {
        self.state.dirty().is_some() || !matches!(self.trust, Trust::Full)
    }

    /// When the next turn is due without an event.
    fn due(&self, now: Instant) -> Instant {
        if self.is_busy() {
            return now;
        }
        let retry = match &self.trust {
            Trust::Failed { retry, .. } => Some(*retry),
            Trust::Full | Trust::Stale => None,
        };
        let looks = [self.walks.due(), self.ejections.due()].map(Some);
        let joined = self.waits_for_others().then(|| self.pace.due()).flatten();
        let times = [
            retry,
            self.roles_retry,
            joined,
            self.state.next_tick(),
            self.next_warning(),
            self.confirm_due(),
            self.track.due(),
            self.announce.due(),
            self.membership.due(now),
        ]
        .into_iter()
        .chain(looks);
        times.flatten().min().unwrap_or(now + IDLE)
    }

    /// When maps are read back for services that become ready. A failure, or changes that wait for others, come first.
    fn confirm_due(&self) -> Option<Instant> {
        let due = self.readiness.due().filter(|_| !matches!(self.trust, Trust::Failed { .. }))?;
        let joined = self.waits_for_others().then(|| self.pace.due()).flatten();
        Some(joined.map_or(due, |joined| joined.max(due)))
    }

    /// Is a walk or a scrape under way?
    fn is_busy(&self) -> bool {
        self.walks.is_walking() || !self.scrapes.is_empty()
    }

    fn is_waiting_for_retry(&self, now: Instant) -> bool {
        matches!(&self.trust, Trust::Failed { retry, .. } if now < *retry)
    }

    /// Are there only changes to single services, which may wait to be applied together with others?
    fn waits_for_others(&self) -> bool {
        matches!((&self.trust, self.state.dirty()), (Trust::Full, Some(Scope::Services(_))))
            && !self.state.is_urgent()
    }

    fn is_waiting_for_others(&self, now: Instant) -> bool {
        self.waits_for_others() && self.pace.due().is_some_and(|due| now < due)
    }

    /// If a change did not fit into the maps, it is retried at once.
    fn grace_period_ended(&mut self, round: u64, now: Instant) {
        self.state.grace_period_ended(round);
        if let Trust::Failed { retry, .. } = &mut self.trust {
            *retry = now;
        }
    }

    fn probed(&mut self, probed: Probed, now: Instant) {
        let (name, detail) = (probed.backend.clone(), probed.result.detail.clone());
        let change = probed.change;
        let admin = |state: &State| state.health_state(&name).map(|it| it.agent.admin);
        let admin_before = admin(&self.state);
        if probed.result.outcome == ProbeOutcome::Success {
            self.readmit(&name);
        }
        let has_changed = self.state.probed(probed, now);
        if let Some(admin) = admin(&self.state).filter(|it| Some(*it) != admin_before) {
            info!(backend:% = name, probe = detail, state = admin.name(); "the state that the backend's agent reports has changed");
        }
        if !has_changed {
            return;
        }
        match change {
            Some(Health::Up) => info!(backend:% = name, probe = detail; "backend is up"),
            Some(Health::Down) => warn!(backend:% = name, probe = detail; "backend is down"),
            None => {}
        }
    }

    /// A failure is logged once, and shown in the status while it lasts.
    fn refresh_host_or_log(&mut self) {
        let failure = self.refresh_host().err().map(|error| format!("{error:#}"));
        match &failure {
            Some(failure) if self.host_failure.as_ref() != Some(failure) => {
                error!("cannot restore interfaces and pins: {failure}; retrying");
            }
            None if self.host_failure.is_some() => info!("interfaces and pins are restored"),
            Some(_) | None => {}
        }
        self.host_failure = failure;
    }

    fn refresh_host(&mut self) -> anyhow::Result<()> {
        let (attached, addresses) = (self.host.attached()?, self.host.addresses()?);
        self.state.links(attached, addresses);
        self.local_ports = self.host.local_ports()?;
        Ok(())
    }
}
