//! What the track file says of this node.

use std::{future::pending, time::Instant};

use log::{info, warn};
use tokio::{sync::mpsc, time::timeout};

use super::{Controller, Host, RETRY};
use crate::{
    datapath::Datapath,
    event::Event,
    problem::{Problem, ProblemKind},
    track_file::{HANDOVER, UNFIT},
    view::{self, Presence},
};

/// The lowest value for services that are not ready. It leaves room for the weights of other scripts.
const LOWEST: i16 = -100;

/// What was written last.
#[derive(Debug, Default)]
pub struct Track {
    written: Option<i16>,
    /// The operator has drained this node.
    is_drained: bool,
    /// The data plane is about to be removed.
    is_leaving: bool,
    /// When to write it again, if that failed.
    pub retry: Option<Instant>,
}

impl Track {
    pub fn new(is_drained: bool) -> Self {
        Self { is_drained, ..Self::default() }
    }

    pub const fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Its age tells whether the daemon lives.
    pub const fn repeat(&mut self) {
        self.written = None;
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Drains this node, or ends that. It is on disk and in the track file before the answer.
    pub(super) fn drain_node(&mut self, is_drained: bool, now: Instant) -> Result<view::Node, Problem> {
        if self.track.is_drained != is_drained {
            let saved = self.host.save_drained(is_drained);
            saved.map_err(|error| Problem::new(ProblemKind::Failed, format!("{error:#}")))?;
            self.track.is_drained = is_drained;
            if is_drained {
                warn!("drained: this node must not have the service addresses");
            } else {
                info!("this node is not drained any more");
            }
        }
        self.track_or_warn(now);
        Ok(self.node(now))
    }

    /// Writes the value, if it has changed. A failure is logged when it begins, and repeated.
    pub(super) fn track_or_warn(&mut self, now: Instant) {
        let value = self.track_value();
        if self.track.written == Some(value) || self.track.retry.is_some_and(|retry| now < retry) {
            return;
        }
        match self.host.track(value) {
            Ok(()) => (self.track.written, self.track.retry) = (Some(value), None),
            Err(error) => {
                if self.track.retry.is_none() {
                    warn!("{error:#}; retrying");
                }
                self.track.retry = Some(now + RETRY);
            }
        }
    }

    /// The node that serves more services has the higher priority.
    fn track_value(&self) -> i16 {
        if self.track.is_leaving
            || self.track.is_drained
            || self.interfaces().iter().any(|interface| !interface.attached)
        {
            return UNFIT;
        }
        let services = self.state.spec().services.iter();
        let unready = services.filter(|service| !self.readiness.is_ready(service, &self.state)).count();
        i16::try_from(unready).map_or(LOWEST, |unready| LOWEST.max(-unready))
    }
}

/// Before the data plane is removed: waits until another node has the service addresses, if there is one.
pub async fn leave<D: Datapath, H: Host>(
    controller: &mut Controller<D, H>,
    events: &mut mpsc::Receiver<Event>,
) {
    controller.track.is_leaving = true;
    controller.track_or_warn(super::now());
    let follow = async {
        while controller.state.node_presence() != Presence::Standby {
            match events.recv().await {
                Some(event) => controller.absorb(event, super::now()),
                None => pending().await,
            }
            controller.turn(super::now());
        }
    };
    let _at_most = timeout(HANDOVER, follow).await;
}
