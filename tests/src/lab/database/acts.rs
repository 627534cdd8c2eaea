//! What happens to the cluster.

use std::{
    thread::sleep,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};

use super::{Clients, SETTLED, Scene, Verdict, verdict::Tables};
use crate::lab::wait::eventually;

/// How long a dead primary is missed before a replica is promoted.
const MISSED: Duration = Duration::from_secs(2);
/// Rows that the writers must get acknowledged before and after an act.
const SOME_ROWS: usize = 400;

impl Scene {
    /// Waits until the writers have written to a server.
    pub fn wait_for_rows(&self, clients: &Clients, server: usize) -> Result<()> {
        let address = self.servers[server].address().ip();
        let goal = clients.acknowledged_by(address) + SOME_ROWS;
        let what = format!("rows are written to {}", self.servers[server].backend.name);
        eventually(SETTLED, &what, || Ok(clients.acknowledged_by(address) >= goal)).map(drop)
    }

    /// Promotes the replica web-2.
    pub fn promote(&self) -> Result<SystemTime> {
        self.servers[1].promote()
    }

    /// The old primary is dead.
    pub fn kill_and_promote(&self) -> Result<SystemTime> {
        self.servers[0].kill()?;
        sleep(MISSED);
        self.promote()
    }

    /// The old primary is cut off, and comes back when the new one has taken over.
    pub fn cut_and_promote(&self) -> Result<SystemTime> {
        self.lab.switch.ip("link set web-1 down")?;
        sleep(MISSED);
        let promoted = self.promote()?;
        self.wait_for_primary("web-2")?;
        self.lab.switch.ip("link set web-1 up")?;
        Ok(promoted)
    }

    /// Stops the writers, and compares the tables. The old primary must run.
    pub fn judge(&self, clients: Clients, promoted: SystemTime) -> Result<(Verdict, super::Reads)> {
        let (writes, reads) = clients.stop()?;
        let (old, new) = (self.rows(0)?, self.rows(1)?);
        let of = |server: usize| self.servers[server].address().ip();
        let tables = Tables { old: (&old, of(0)), new: (&new, of(1)) };
        Ok((Verdict::of(&tables, &writes, promoted)?, reads))
    }

    /// The readers of live replicas saw no error. Those of the old primary are not meant.
    pub fn ensure_readers_lost_nothing(&self, reads: &super::Reads) -> Result<()> {
        ensure!(
            reads.errors.is_empty(),
            "readers saw {} errors, such as {:?}",
            reads.errors.len(),
            reads.errors.first()
        );
        ensure!(!reads.answers.is_empty(), "no reader was answered");
        Ok(())
    }
}
