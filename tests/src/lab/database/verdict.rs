//! What became of the writes around a promotion.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use super::{INTERVAL, Row, Writes};

/// After the promotion, writes must go on within this time.
const RESUMED: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that the old primary took after the new one took its first.
    pub stale: usize,
    /// Rows that the old primary took after the promotion, until xlb had seen it.
    pub after_promotion: usize,
    /// The last of those, after the promotion.
    pub last_after_promotion: Duration,
    /// Acknowledged rows of the new primary that it does not have.
    pub lost: usize,
    /// Acknowledged rows of the old primary that the new one does not have: asynchronous replication.
    pub not_shipped: usize,
    /// From the promotion to the first row of the new primary.
    pub resumed: Duration,
    /// Acknowledged rows of both.
    pub acknowledged: usize,
}

/// The rows that both servers have when the writers have stopped.
pub struct Tables<'a> {
    /// Of the old primary.
    pub old: (&'a [Row], &'a str),
    /// Of the new one.
    pub new: (&'a [Row], &'a str),
}

impl Verdict {
    /// Compares the tables with what the writers know.
    pub fn of(tables: &Tables<'_>, writes: &Writes, promoted: SystemTime) -> Result<Self> {
        let (old, new) = (tables.old, tables.new);
        let first_new = new.0.iter().filter(|row| row.server == new.1).map(|row| row.at).min();
        let first_new = first_new.context("the new primary has taken no row")?;
        let taken_by_old = || old.0.iter().filter(|row| row.server == old.1).map(|row| row.at);
        let late: Vec<_> = taken_by_old().filter(|at| *at > promoted).collect();
        let kept: BTreeSet<_> = new.0.iter().map(|row| row.key).collect();
        let missing = |server: &str| {
            writes.acks.iter().filter(|ack| ack.server == server && !kept.contains(&ack.key)).count()
        };
        Ok(Self {
            stale: taken_by_old().filter(|at| *at > first_new).count(),
            after_promotion: late.len(),
            last_after_promotion: late.iter().max().map_or(Duration::ZERO, |at| after(*at, promoted)),
            lost: missing(new.1),
            not_shipped: missing(old.1),
            resumed: after(first_new, promoted),
            acknowledged: writes.acks.len(),
        })
    }

    /// What xlb promises on any machine.
    pub fn keeps_its_order(&self) -> Result<()> {
        ensure!(self.stale == 0, "the old primary took rows after the new one: {self}");
        ensure!(self.lost == 0, "acknowledged rows are gone: {self}");
        Ok(())
    }

    /// What xlb promises on a machine that is not busy.
    pub fn is_in_time(&self) -> Result<()> {
        ensure!(
            self.last_after_promotion <= 2 * INTERVAL,
            "later than two intervals after the promotion: {self}"
        );
        ensure!(self.resumed <= RESUMED, "writes went on too late: {self}");
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stale, after_promotion, lost, not_shipped, acknowledged, .. } = self;
        write!(
            f,
            "{stale} rows of the old primary after the first of the new one; {after_promotion} after the promotion, the \
             last {} ms after it; {lost} acknowledged rows lost by the new primary, {not_shipped} not shipped by the old \
             one, of {acknowledged}; writes went on {} ms after the promotion",
            self.last_after_promotion.as_millis(),
            self.resumed.as_millis()
        )
    }
}

fn after(at: SystemTime, start: SystemTime) -> Duration {
    at.duration_since(start).unwrap_or_default()
}
