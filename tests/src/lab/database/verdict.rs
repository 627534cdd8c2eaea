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
    /// Acknowledged rows of the old primary that the new one had before its promotion.
    pub shipped: usize,
    /// Those of them that it does not have at the end.
    pub gone: usize,
    /// Acknowledged rows of the old primary that the new one never had: asynchronous replication.
    pub not_shipped: usize,
    /// From the promotion to the first row of the new primary.
    pub resumed: Duration,
    /// Acknowledged rows of both.
    pub acknowledged: usize,
}

/// A replica became the primary.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// When, or shortly before.
    pub at: SystemTime,
    /// The rows that it had just before. Those that arrived between the look and the promotion are not among them.
    pub had: BTreeSet<(u32, u32)>,
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
    pub fn of(tables: &Tables<'_>, writes: &Writes, promotion: &Promotion) -> Result<Self> {
        let (old, new) = (tables.old, tables.new);
        let first_new = new.0.iter().filter(|row| row.server == new.1).map(|row| row.at).min();
        let first_new = first_new.context("the new primary has taken no row")?;
        let taken_by_old = || old.0.iter().filter(|row| row.server == old.1).map(|row| row.at);
        let late: Vec<_> = taken_by_old().filter(|at| *at > promotion.at).collect();
        let kept: BTreeSet<_> = new.0.iter().map(|row| row.key).collect();
        let count = |server: &str, is: &dyn Fn(&(u32, u32)) -> bool| {
            writes.acks.iter().filter(|ack| ack.server == server && is(&ack.key)).count()
        };
        let was_shipped = |key: &(u32, u32)| promotion.had.contains(key);
        Ok(Self {
            stale: taken_by_old().filter(|at| *at > first_new).count(),
            after_promotion: late.len(),
            last_after_promotion: late.iter().max().map_or(Duration::ZERO, |at| after(*at, promotion.at)),
            lost: count(new.1, &|key| !kept.contains(key)),
            shipped: count(old.1, &was_shipped),
            gone: count(old.1, &|key| was_shipped(key) && !kept.contains(key)),
            not_shipped: count(old.1, &|key| !was_shipped(key) && !kept.contains(key)),
            resumed: after(first_new, promotion.at),
            acknowledged: writes.acks.len(),
        })
    }

    /// What xlb promises on any machine.
    pub fn keeps_its_order(&self) -> Result<()> {
        ensure!(self.stale == 0, "the old primary took rows after the new one: {self}");
        ensure!(self.lost == 0 && self.gone == 0, "acknowledged rows are gone: {self}");
        ensure!(self.shipped > 0, "the new primary had no rows, so that none could be gone: {self}");
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
        let Self { stale, after_promotion, lost, shipped, gone, not_shipped, acknowledged, .. } = self;
        write!(
            f,
            "{stale} rows of the old primary after the first of the new one; {after_promotion} after the promotion, the \
             last {} ms after it; {lost} acknowledged rows lost by the new primary; {gone} gone of {shipped} that it had \
             before; {not_shipped} not shipped by the old one, of {acknowledged}; writes went on {} ms after the promotion",
            self.last_after_promotion.as_millis(),
            self.resumed.as_millis()
        )
    }
}

fn after(at: SystemTime, start: SystemTime) -> Duration {
    at.duration_since(start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::Ack, *};

    /// web-1 took rows 0 to 3. web-2 had rows 0 and 1 when it was promoted, and then took row 9.
    fn judge(of_new: &[u32]) -> Verdict {
        let row = |n: u32, server: &str| {
            let at = UNIX_EPOCH + Duration::from_millis(n.into());
            Row { key: (0, n), server: server.to_owned(), at }
        };
        let taken_by = |n| if n < 5 { "web-1" } else { "web-2" };
        let acks = [0, 1, 2, 3, 9].map(|n| Ack { key: (0, n), server: taken_by(n).to_owned() });
        let old: Vec<_> = (0..4).map(|n| row(n, "web-1")).collect();
        let new: Vec<_> = of_new.iter().map(|n| row(*n, taken_by(*n))).collect();
        let promotion = Promotion { at: UNIX_EPOCH + Duration::from_millis(5), had: [(0, 0), (0, 1)].into() };
        let tables = Tables { old: (&old, "web-1"), new: (&new, "web-2") };
        let writes = Writes { acks: acks.to_vec(), errors: 0 };
        Verdict::of(&tables, &writes, &promotion).unwrap()
    }

    #[test]
    fn a_row_that_was_shipped_must_be_kept_and_others_need_not() {
        let good = judge(&[0, 1, 2, 9]);
        let bad = judge(&[0, 2, 9]);

        assert_eq!((good.shipped, good.gone, good.not_shipped, good.lost), (2, 0, 1, 0));
        assert_eq!((bad.shipped, bad.gone, bad.not_shipped, bad.lost), (2, 1, 1, 0));
        assert!(good.keeps_its_order().is_ok());
        assert!(bad.keeps_its_order().unwrap_err().to_string().starts_with("acknowledged rows are gone"));
    }
}
