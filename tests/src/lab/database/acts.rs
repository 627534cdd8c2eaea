//! What happens to the cluster.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};

use super::{Clients, Engine, Promotion, Reads, SETTLED, Scene, Verdict, endpoint, verdict::Tables};
use crate::lab::{MariaDb, wait::eventually};

/// How long a dead primary is missed before a replica is promoted.
const MISSED: Duration = Duration::from_secs(2);
/// Rows of each writer that must be acknowledged, and reads of each reader that must be answered, before and after an act.
const SOME_ROWS: usize = 2;

impl<E: Engine> Scene<E> {
    /// Waits until the writers have written to a server.
    pub fn wait_for_rows(&self, clients: &Clients, server: usize) -> Result<()> {
        let name = &self.servers[server].backend().name;
        let goal = clients.acknowledged_by(name) + SOME_ROWS * E::WRITERS as usize;
        let what = format!("rows are written to {name}");
        eventually(SETTLED, &what, || Ok(clients.acknowledged_by(name) >= goal)).map(drop)
    }

    /// Waits until a server has answered reads.
    pub fn wait_for_reads(&self, clients: &Clients, server: usize) -> Result<()> {
        let name = &self.servers[server].backend().name;
        let goal = clients.answered_by(name) + SOME_ROWS * E::READERS as usize;
        let what = format!("reads are answered by {name}");
        eventually(SETTLED, &what, || Ok(clients.answered_by(name) >= goal)).map(drop)
    }

    /// Waits until a new connection for reads goes to one of these servers. That may be 100 ms after `xlb role list` says so.
    pub fn wait_for_new_reads(&self, names: &[&str]) -> Result<()> {
        eventually(SETTLED, &format!("new reads go to one of {names:?}"), || {
            let answer = self.lab.client.block_on(|| async {
                let mut session = E::connect(endpoint::<E>(true)).await?;
                E::ask(&mut session).await
            });
            Ok(answer.is_ok_and(|answer| names.contains(&answer.as_str())))
        })
        .map(drop)
    }

    /// Promotes the replica web-2.
    pub fn promote(&self) -> Result<Promotion> {
        let had = self.servers[1].rows()?.into_iter().map(|row| row.key).collect();
        Ok(Promotion { had, at: self.servers[1].promote()? })
    }

    /// The old primary is dead.
    pub fn kill_and_promote(&mut self) -> Result<Promotion> {
        self.servers[0].kill()?;
        sleep(MISSED);
        self.promote()
    }

    /// The old primary is cut off, and comes back when the new one has taken over. Returns when its checks succeed again.
    pub fn cut_and_promote(&self) -> Result<Promotion> {
        self.lab.switch.ip("link set web-1 down")?;
        sleep(MISSED);
        let promoted = self.promote()?;
        self.wait_for_primary("web-2")?;
        self.wait_for_health("web-1", "down")?;
        self.lab.switch.ip("link set web-1 up")?;
        self.wait_for_health("web-1", "up")?;
        Ok(promoted)
    }

    /// Starts the dead old primary, and waits until its checks succeed.
    pub fn start_old_again(&mut self) -> Result<()> {
        self.servers[0].start_again()?;
        self.wait_for_health("web-1", "up")
    }

    fn wait_for_health(&self, server: &str, health: &str) -> Result<()> {
        eventually(SETTLED, &format!("{server} is {health}"), || Ok(self.xlb.health("db", server)? == health))
            .map(drop)
    }

    /// Stops the clients, and compares the tables. The old primary must run.
    pub fn judge(&self, clients: Clients, promoted: &Promotion) -> Result<(Verdict, Reads)> {
        let (writes, reads) = clients.stop()?;
        let [old, new, _] = &self.servers;
        let (old_rows, new_rows) = (old.rows()?, new.rows()?);
        let tables = Tables { old: (&old_rows, &old.backend().name), new: (&new_rows, &new.backend().name) };
        Ok((Verdict::of(&tables, &writes, promoted)?, reads))
    }

    /// The readers of live replicas saw no error. Those of the old primary are not meant.
    pub fn ensure_readers_lost_nothing(&self, reads: &Reads) -> Result<()> {
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

impl Scene<MariaDb> {
    /// The old primary takes no more writes, and the new one has all of its rows before it takes over.
    pub fn switch_over(&self) -> Result<Promotion> {
        let [old, new, _] = &self.servers;
        old.sql("SET GLOBAL read_only = 1")?;
        new.wait_for(old)?;
        self.promote()
    }
}
