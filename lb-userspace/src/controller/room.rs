//! Room for another schedule: pools, slots and sets of sources become free once no packet can be reading them.

use std::{iter, time::Instant};

use anyhow::Context;
use log::debug;

use super::{Controller, Host, compile::NoRoom, diff::diff};
use crate::datapath::{Datapath, Snapshot};

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Frees what no packet can be reading. If that is not enough, waits for a grace period here.
    pub(super) fn make_room(&mut self, no_room: NoRoom, now: Instant) -> anyhow::Result<()> {
        if !no_room.ends_with_grace() {
            return Err(no_room.into());
        }
        self.free_unread(now)?;
        let Err(no_room) = self.plan() else { return Ok(()) };
        debug!("waiting for an RCU grace period, after which former slots and sources can be reused");
        self.datapath.grace_period().context(no_room)?;
        self.state.end_grace();
        self.free_unread(now)
    }

    fn free_unread(&mut self, now: Instant) -> anyhow::Result<()> {
        let unread = self.have.part(iter::empty(), self.state.grace());
        let none = Snapshot { next_backend_id: unread.next_backend_id, ..Snapshot::default() };
        self.take_steps(&diff(&unread, &none), now)
    }
}
