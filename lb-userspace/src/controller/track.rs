//! What the track file says of this node.

use std::time::{Duration, Instant};

use log::{info, warn};
use tokio::{sync::mpsc, time::sleep_until};

use super::{Controller, Host, RETRY, readiness::Known, state::State};
use crate::{
    datapath::Datapath,
    event::Event,
    group::status::GroupStatus,
    problem::{Problem, ProblemKind},
    track_file::{HANDOVER, UNFIT},
    view::{self, Presence},
};

/// The lowest value for services that are not ready. It leaves room for the weights of other scripts.
const LOWEST: i16 = -100;

/// Added to the interval of a service's checks: checks of two nodes see a failure at most that far apart.
const SKEW: Duration = Duration::from_millis(250);

/// What was written last.
#[derive(Debug, Default)]
pub struct Track {
    written: Option<i16>,
    /// The operator has drained this node.
    is_drained: bool,
    /// The data plane is about to be removed.
    is_leaving: bool,
    /// Why it could not be written, and when to write it again.
    failure: Option<(String, Instant)>,
    /// When the value changes because of time.
    next: Option<Instant>,
}

impl Track {
    pub fn new(is_drained: bool) -> Self {
        Self { is_drained, ..Self::default() }
    }

    pub const fn is_drained(&self) -> bool {
        self.is_drained
    }

    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|(why, _)| why.as_str())
    }

    /// When it must be looked at without another reason.
    pub fn due(&self) -> Option<Instant> {
        self.failure.as_ref().map(|(_, retry)| *retry).or(self.next)
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due().map_or(self.written.is_none(), |due| due <= now)
    }

    /// Its age tells whether the daemon lives.
    pub const fn repeat(&mut self) {
        self.written = None;
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Drains this node, or ends that. It is on disk and in the track file before the answer.
    pub(super) fn drain_node(&mut self, is_drained: bool, now: Instant) -> Result<view::Node, Problem> {
        let failed = |error: anyhow::Error| Problem::new(ProblemKind::Failed, format!("{error:#}"));
        // A drain that was saved in part is ended, too.
        if self.track.is_drained != is_drained || !is_drained {
            self.host.save_drained(is_drained).map_err(failed)?;
        }
        if self.track.is_drained != is_drained {
            self.track.is_drained = is_drained;
            if is_drained {
                warn!("drained: this node must not have the service addresses");
            } else {
                info!("this node is not drained any more");
            }
        }
        self.announce(now).and(self.write_track(now)).map_err(failed)?;
        Ok(self.node(now))
    }

    /// Writes the value, if it has changed. A failure is logged when it begins, and repeated.
    pub(super) fn track_or_warn(&mut self, now: Instant) {
        let had_failed = self.track.failure.is_some();
        if let Err(error) = self.write_track(now)
            && !had_failed
        {
            warn!("{error:#}; retrying");
        }
    }

    fn write_track(&mut self, now: Instant) -> anyhow::Result<()> {
        let value = self.track_value(now);
        if self.track.written != Some(value) {
            if let Err(error) = self.host.track(value) {
                (self.track.written, self.track.failure) = (None, Some((format!("{error:#}"), now + RETRY)));
                return Err(error);
            }
            self.track.written = Some(value);
        }
        self.track.failure = None;
        Ok(())
    }

    /// The node that serves more services has the higher priority.
    ///
    /// Both nodes may lose the same service, and do not see it at the same moment. So a change that favours the other node counts
    /// at once on the node that is standby, and later on the one that is active. While peers have its flows, a loss counts at once
    /// there, too: a move that turns out to be needless breaks no flow, and one that is needed is not late.
    fn track_value(&mut self, now: Instant) -> i16 {
        self.track.next = None;
        if self.is_unfit() {
            return UNFIT;
        }
        let is_standby = self.state.node_presence() == Presence::Standby;
        let is_shared = self.is_shared();
        let mut unready = self.readiness.unknown(self.state.spec().services.len());
        let mut next: Option<Instant> = None;
        for (name, Known { is_ready, since }) in self.readiness.known() {
            let counts_late = if is_standby { is_ready } else { !is_ready && !is_shared };
            let due = since + self.skew(name);
            let is_pending = counts_late && now < due;
            unready += usize::from(is_ready == is_pending);
            next = if is_pending { Some(next.map_or(due, |next| next.min(due))) } else { next };
        }
        self.track.next = next;
        i16::try_from(unready).map_or(LOWEST, |unready| LOWEST.max(-unready))
    }

    /// It must not have the service addresses, whatever its services are.
    pub(super) fn is_unfit(&self) -> bool {
        self.track.is_leaving
            || self.track.is_drained
            || self.is_learning_standby()
            || self.interfaces().iter().any(|interface| !interface.attached)
    }

    /// A node that has just started lacks the flows of its peers. One that has the addresses keeps them, because a move would break
    /// the flows that only it has.
    fn is_learning_standby(&self) -> bool {
        let is_learning = self.host.group().is_some_and(|group| group.is_learning);
        is_learning && self.state.node_presence() == Presence::Standby
    }

    /// All peers have the flows of this node.
    fn is_shared(&self) -> bool {
        let have_all = |group: &GroupStatus| group.peers.iter().all(|it| it.is_subscribed && it.is_complete);
        self.host.group().is_some_and(|group| have_all(&group))
    }

    fn skew(&self, service: &str) -> Duration {
        let check = self.state.service(service).and_then(|it| it.health.as_ref());
        check.map_or(SKEW, |check| check.interval + SKEW)
    }
}

/// Before the data plane is removed: withdraws what this node announces, and waits until routers have followed, or
/// another node has the service addresses, if there is one.
pub async fn leave<D: Datapath, H: Host>(
    controller: &mut Controller<D, H>,
    events: &mut mpsc::Receiver<Event>,
) {
    controller.track.is_leaving = true;
    let was_announcing = controller.announce.is_announcing();
    controller.announce_or_warn(super::now());
    controller.track_or_warn(super::now());
    let deadline = super::now() + HANDOVER;
    let must_wait = |state: &State| was_announcing || state.node_presence() != Presence::Standby;
    while must_wait(&controller.state) && super::now() < deadline {
        tokio::select! {
            Some(event) = events.recv() => controller.absorb(event, super::now()),
            () = sleep_until(deadline.into()) => {}
        }
        while let Ok(event) = events.try_recv() {
            controller.absorb(event, super::now());
        }
        controller.turn(super::now());
    }
}
