//! Pools that services no longer use, and slots and source sets that pools no longer use, for as long as a packet may
//! be reading them.
//!
//! That time ends with an RCU grace period, which begins after the last use and takes some milliseconds. What falls out of
//! use within a [`BATCH`] shares one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::pool::{PoolNumber, SlotRange, SourceSetNumber};

use crate::datapath::{Op, Snapshot};

/// How long a grace period is delayed after something falls out of use, so that it covers what follows.
pub const BATCH: Duration = Duration::from_secs(1);

/// Grace periods are numbered.
pub type Round = u64;

/// What is out of use, each with the number of the grace period after which it is free. Slot ranges do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Grace {
    pools: BTreeMap<PoolNumber, Round>,
    slots: BTreeMap<SlotRange, Round>,
    sources: BTreeMap<SourceSetNumber, Round>,
    /// How many grace periods have begun, and how many of them have ended: all, or all but the last.
    begun: Round,
    ended: Round,
    /// When the first entry began to wait for the next grace period.
    waiting: Option<Instant>,
}

impl Grace {
    /// Takes over from the maps: what no pool uses may have been active a moment ago.
    pub fn adopt(&mut self, have: &Snapshot, now: Instant) {
        let in_use = have.pools_in_use();
        for pool in have.pools.keys().filter(|pool| !in_use.contains(pool)) {
            self.add_pool(*pool, now);
        }
        let in_force = have.slots_in_force();
        for (offset, ids) in have.slots.iter().filter(|(offset, _)| !in_force.contains(offset)) {
            self.add_slots(SlotRange { offset: *offset, length: ids.len() as u32 }, now);
        }
        let in_force = have.sources_in_force();
        for set in have.sources.keys().filter(|set| !in_force.contains(set)) {
            self.add_sources(*set, now);
        }
    }

    /// Before an operation is applied to `have`.
    pub fn applying(&mut self, op: &Op, have: &Snapshot, now: Instant) {
        if let Op::PutService(listen, _) | Op::DeleteService(listen) = op
            && let Some(service) = have.services.get(listen)
        {
            let there = service.pools().filter(|pool| have.pools.contains_key(pool));
            there.for_each(|pool| self.add_pool(pool, now));
        }
        let Some((number, after)) = op.pool_change() else { return };
        let Some(before) = have.pools.get(&number) else { return };
        if before.slots() != after.slots() && before.slots().length != 0 {
            self.add_slots(before.slots(), now);
        }
        if before.sources() != after.sources() && before.sources() != SourceSetNumber::NONE {
            self.add_sources(before.sources(), now);
        }
    }

    fn add_pool(&mut self, pool: PoolNumber, now: Instant) {
        let round = self.next(now);
        self.pools.insert(pool, round);
    }

    fn add_slots(&mut self, range: SlotRange, now: Instant) {
        let round = self.next(now);
        self.slots.insert(range, round);
    }

    fn add_sources(&mut self, set: SourceSetNumber, now: Instant) {
        let round = self.next(now);
        self.sources.insert(set, round);
    }

    /// The number of the next grace period, which something waits for from now on.
    fn next(&mut self, now: Instant) -> Round {
        self.waiting.get_or_insert(now);
        self.begun + 1
    }

    /// The grace period that is to begin now, if one is due.
    pub fn begin(&mut self, now: Instant) -> Option<Round> {
        self.due().filter(|due| *due <= now)?;
        self.waiting = None;
        self.begun += 1;
        Some(self.begun)
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        let is_free = self.begun == self.ended;
        self.waiting.filter(|_| is_free).map(|since| since + BATCH)
    }

    /// A grace period has ended: what it covers is free.
    pub fn end(&mut self, round: Round) {
        self.ended = round;
        self.pools.retain(|_, last| *last > round);
        self.slots.retain(|_, last| *last > round);
        self.sources.retain(|_, last| *last > round);
    }

    /// A grace period that began after all operations has passed: no packet is reading any of it.
    pub fn end_all(&mut self) {
        *self = Self { begun: self.begun, ended: self.ended, ..Self::default() };
    }

    /// May a packet be on its way to this pool?
    pub fn has_pool(&self, pool: PoolNumber) -> bool {
        self.pools.contains_key(&pool)
    }

    /// May a packet be reading one of these slots?
    pub fn has_slots(&self, range: SlotRange) -> bool {
        let mut before_end = self.slots.range(..SlotRange { offset: range.end(), length: 0 });
        before_end.next_back().is_some_and(|(it, _)| it.end() > range.offset)
    }

    /// May a packet be reading this source set?
    pub fn has_sources(&self, set: SourceSetNumber) -> bool {
        self.sources.contains_key(&set)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::pool::SlotIndex;

    use super::*;

    #[test]
    fn slots_may_be_read_if_they_overlap_former_ones() {
        let mut grace = Grace::default();
        grace.slots.extend([(at(4, 2), 1), (at(8, 8), 1)]);

        let cases =
            [(at(0, 4), false), (at(0, 5), true), (at(6, 2), false), (at(15, 1), true), (at(16, 9), false)];
        for (range, expected) in cases {
            assert_eq!(grace.has_slots(range), expected, "{range:?}");
        }
    }

    #[test]
    fn a_grace_period_frees_what_fell_out_of_use_before_it_began() {
        let (mut grace, start) = (Grace::default(), Instant::now());
        grace.add_pool(PoolNumber(1), start);
        grace.add_pool(PoolNumber(2), start + BATCH / 2);
        assert_eq!((grace.due(), grace.begin(start)), (Some(start + BATCH), None));

        let first = grace.begin(start + BATCH).unwrap();
        grace.add_pool(PoolNumber(3), start + BATCH);
        assert_eq!(grace.begin(start + BATCH * 3), None, "one at a time");
        grace.end(first);

        assert_eq!([1, 2, 3].map(|pool| grace.has_pool(PoolNumber(pool))), [false, false, true]);
        let second = grace.begin(start + BATCH * 3).unwrap();
        grace.end(second);
        assert!(!grace.has_pool(PoolNumber(3)));
        assert_eq!(grace.due(), None);
    }

    fn at(offset: u32, length: u32) -> SlotRange {
        SlotRange { offset: SlotIndex(offset), length }
    }
}
