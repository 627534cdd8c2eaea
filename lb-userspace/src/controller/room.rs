//! Room for another schedule: slots that were in force can be freed as soon as no packet reads them.

use std::time::Instant;

use anyhow::Context;
use log::debug;

use super::{Controller, Host, compile::NoRoom, diff::diff};
use crate::datapath::Datapath;

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Frees what pools named before, if that makes room. Waits for the kernel instead of the end of a grace period.
    pub(super) fn make_room(&mut self, no_room: NoRoom, now: Instant) -> anyhow::Result<()> {
        if !no_room.ends_with_grace() {
            return Err(no_room.into());
        }
        debug!("{no_room}: waiting for a grace period, to reuse former slots");
        self.datapath.grace_period().context("wait for a grace period").context(no_room)?;
        self.state.end_grace();
        let mut kept = self.have.clone();
        kept.keep_what_is_in_force();
        self.take_steps(&diff(&self.have, &kept), now)
    }
}
