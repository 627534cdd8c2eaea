//! The number of half-open flows.
//!
//! All CPUs add to it, so the cache line of a single word would bounce between CPUs for every new flow. Each CPU keeps
//! its own difference instead, and adds it to the shared word when it exceeds a batch. A CPU sees its own difference at
//! once, and those of the others up to a batch late.

use lb_common::cell::Word;

use crate::{family::Family, storage::FlowTable};

/// The count, as one CPU sees it.
pub struct HalfOpen<'a> {
    /// The sum of all differences that were added.
    pub shared: &'a Word,
    /// This CPU's difference, and the largest one that it keeps.
    pub own: Option<(&'a Word, u32)>,
}

impl HalfOpen<'_> {
    /// The number of half-open flows. It may be negative if this CPU completed handshakes of flows that another CPU
    /// created.
    #[inline(always)]
    pub fn load(&self) -> i64 {
        let own = self.own.map_or(0, |(own, _)| own.load());
        self.shared.load().wrapping_add(own) as i64
    }

    #[inline(always)]
    fn add(&self, change: i64) {
        let Some((own, batch)) = self.own else {
            self.shared.fetch_add(change as u64);
            return;
        };
        let difference = (own.load() as i64).wrapping_add(change);
        // From -batch to batch, with one comparison.
        if difference.wrapping_add(batch.into()) as u64 <= 2 * u64::from(batch) {
            own.store(difference as u64);
        } else {
            self.shared.fetch_add(difference as u64);
            own.store(0);
        }
    }
}

/// Changes the number of half-open flows.
#[inline(always)]
pub fn count<F: Family>(table: &impl FlowTable<F>, change: i64) {
    if let Some(half_open) = table.half_open() {
        half_open.add(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_sees_its_own_changes_and_shares_them_in_batches() {
        let (shared, own) = (Word::new(10), Word::new(0));
        let half_open = HalfOpen { shared: &shared, own: Some((&own, 2)) };

        half_open.add(1);
        half_open.add(1);
        assert_eq!((shared.load(), half_open.load()), (10, 12));

        half_open.add(1);
        assert_eq!((shared.load(), own.load(), half_open.load()), (13, 0, 13));

        half_open.add(-1);
        half_open.add(-1);
        assert_eq!((shared.load(), half_open.load()), (13, 11));

        half_open.add(-1);
        assert_eq!((shared.load(), own.load(), half_open.load()), (10, 0, 10));
    }

    #[test]
    fn the_count_of_a_cpu_that_proves_flows_of_another_may_be_negative() {
        let (shared, own) = (Word::new(0), Word::new(0));
        let half_open = HalfOpen { shared: &shared, own: Some((&own, 2)) };

        half_open.add(-1);
        assert_eq!(half_open.load(), -1);
    }

    #[test]
    fn without_a_batch_every_change_is_shared_at_once() {
        let (shared, own) = (Word::new(0), Word::new(0));
        for own in [None, Some((&own, 0))] {
            HalfOpen { shared: &shared, own }.add(1);
        }

        assert_eq!((shared.load(), own.load()), (2, 0));
    }
}
