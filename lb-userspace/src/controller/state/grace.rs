//! Pools that services no longer use, and slots and source sets that pools no longer use, for as long as a packet may
//! be reading them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::pool::SlotRange;

use crate::datapath::{Op, Snapshot};

/// How long a packet in flight may still read what was active: a generous limit.
pub const GRACE_PERIOD: Duration = Duration::from_secs(1);

/// Each with the time at which the last use ended. Ranges of slots do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Grace {
    pools: BTreeMap<u32, Instant>,
    slots: BTreeMap<SlotRange, Instant>,
    sources: BTreeMap<u32, Instant>,
}

impl Grace {
    /// Takes over from the maps: what no pool uses may have been active a moment ago.
    pub fn adopt(&mut self, have: &Snapshot, now: Instant) {
        let in_use = have.pools_in_use();
        let pools = have.pools.keys().filter(|pool| !in_use.contains(pool));
        self.pools.extend(pools.map(|pool| (*pool, now)));
        let in_force = have.slots_in_force();
        let ranges = have.slots.iter().filter(|(offset, _)| !in_force.contains(offset));
        let ranges = ranges.map(|(at, ids)| SlotRange { offset: *at, length: ids.len() as u32 });
        self.slots.extend(ranges.map(|range| (range, now)));
        let in_force = have.sources_in_force();
        let sets = have.sources.keys().filter(|set| !in_force.contains(set));
        self.sources.extend(sets.map(|set| (*set, now)));
    }

    /// Before an operation is applied to `have`.
    pub fn applying(&mut self, op: &Op, have: &Snapshot, now: Instant) {
        if let Op::PutService(listen, _) | Op::DeleteService(listen) = op {
            let pool = have.services.get(listen).map(|service| service.pool);
            self.pools.extend(pool.filter(|pool| have.pools.contains_key(pool)).map(|pool| (pool, now)));
        }
        let Some((number, after)) = op.pool_change() else { return };
        let Some(before) = have.pools.get(&number) else { return };
        if before.slots() != after.slots() && before.slots().length != 0 {
            self.slots.insert(before.slots(), now);
        }
        if before.sources() != after.sources() && before.sources() != 0 {
            self.sources.insert(before.sources(), now);
        }
    }

    /// Advances time. Returns whether a grace period has ended.
    pub fn tick(&mut self, now: Instant) -> bool {
        let before = self.len();
        let is_young = |since: &Instant| now.duration_since(*since) < GRACE_PERIOD;
        self.pools.retain(|_, since| is_young(since));
        self.slots.retain(|_, since| is_young(since));
        self.sources.retain(|_, since| is_young(since));
        self.len() != before
    }

    fn len(&self) -> usize {
        self.pools.len() + self.slots.len() + self.sources.len()
    }

    /// When the next one ends.
    pub fn due(&self) -> Option<Instant> {
        let since = self.pools.values().chain(self.slots.values()).chain(self.sources.values()).min();
        since.map(|since| *since + GRACE_PERIOD)
    }

    /// A grace period has passed: no packet is reading any of it.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// May a packet be on its way to this pool?
    pub fn has_pool(&self, pool: u32) -> bool {
        self.pools.contains_key(&pool)
    }

    /// May a packet be reading one of these slots?
    pub fn has_slots(&self, range: SlotRange) -> bool {
        let end = range.offset + range.length;
        let mut before_end = self.slots.range(..SlotRange { offset: end, length: 0 });
        before_end.next_back().is_some_and(|(it, _)| it.offset + it.length > range.offset)
    }

    /// May a packet be reading this source set?
    pub fn has_sources(&self, set: u32) -> bool {
        self.sources.contains_key(&set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_may_be_read_if_they_overlap_former_ones() {
        let mut grace = Grace::default();
        let now = Instant::now();
        grace.slots.extend([(at(4, 2), now), (at(8, 8), now)]);

        let cases =
            [(at(0, 4), false), (at(0, 5), true), (at(6, 2), false), (at(15, 1), true), (at(16, 9), false)];
        for (range, expected) in cases {
            assert_eq!(grace.has_slots(range), expected, "{range:?}");
        }
    }

    fn at(offset: u32, length: u32) -> SlotRange {
        SlotRange { offset, length }
    }
}
