//! Whether this node has the addresses of the services: a line in the log for each change, and a part of the status.

use std::time::Instant;

use log::info;

use super::{Controller, Host, state::State};
use crate::{
    datapath::Datapath,
    named::Named,
    view::{self, Presence},
};

/// What was last seen of the addresses.
#[derive(Debug)]
pub struct LastPresence {
    /// `None`: not looked at yet.
    state: Option<Presence>,
    since: Instant,
}

impl LastPresence {
    pub const fn unknown(now: Instant) -> Self {
        Self { state: None, since: now }
    }

    pub fn update(&mut self, state: &State, now: Instant) {
        let presence = state.node_presence();
        if self.state != Some(presence) {
            report(presence);
            *self = Self { state: Some(presence), since: now };
        }
    }
}

fn report(presence: Presence) {
    let found = match presence {
        Presence::Active => "all listen addresses are on this host",
        Presence::Partial => "some of the listen addresses are on this host",
        Presence::Standby => "no listen address is on this host",
    };
    info!(state = presence.name(); "{found}");
}

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn node(&self, now: Instant) -> view::Node {
        let (state, last) = (self.state.node_presence(), &self.presence);
        let since = if last.state == Some(state) { last.since } else { now };
        view::Node {
            state,
            drained: self.track.is_drained(),
            since_seconds: now.saturating_duration_since(since).as_secs(),
            missing: self.state.missing_listens(),
            announce: self.announcement(),
        }
    }
}
