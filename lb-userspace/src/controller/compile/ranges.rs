//! Free ranges of slots: first fit, in sizes that are powers of two.
//!
//! A range is rounded up to a power of two and aligned to it. So a free range is always found, whatever the allocation
//! history, as long as at most `allowed` slots are in use. `lb_common::limits::Room::slots` has the proof.

use std::collections::BTreeMap;

use lb_common::pool::{SlotIndex, SlotRange};

/// The used slots, and where to continue the search for free ones.
#[derive(Debug)]
pub struct Ranges {
    /// Number of slots.
    slots: u32,
    /// How many of them may be used.
    allowed: u32,
    in_use: u32,
    /// First slot -> slot after the last one.
    taken: BTreeMap<u32, u32>,
    /// By exponent of the size: no free range begins below this.
    from: [u32; u32::BITS as usize],
}

impl Ranges {
    /// `slots` slots, of which `allowed` may be used, with these ranges taken.
    pub fn new(slots: u32, allowed: u32, taken: impl IntoIterator<Item = SlotRange>) -> Self {
        let mut ranges =
            Self { slots, allowed, in_use: 0, taken: BTreeMap::new(), from: [0; u32::BITS as usize] };
        for range in taken {
            let size = range.length.next_power_of_two();
            ranges.taken.insert(range.offset.0, range.offset.0 + size);
            ranges.in_use += size;
        }
        ranges
    }

    /// Takes the lowest free range.
    pub fn take(&mut self, length: u32) -> Option<SlotRange> {
        let size = length.next_power_of_two();
        if size > self.allowed.saturating_sub(self.in_use) {
            return None;
        }
        let mut offset = self.from[size.ilog2() as usize];
        while let Some(end) = self.obstacle(offset, size) {
            offset = end.next_multiple_of(size);
        }
        if size > self.slots.saturating_sub(offset) {
            return None;
        }
        self.from[size.ilog2() as usize] = offset + size;
        self.taken.insert(offset, offset + size);
        self.in_use += size;
        Some(SlotRange { offset: SlotIndex(offset), length })
    }

    /// The end of the last used range that overlaps these slots.
    fn obstacle(&self, offset: u32, size: u32) -> Option<u32> {
        let (_, end) = self.taken.range(..offset + size).next_back()?;
        (*end > offset).then_some(*end)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::limits::Room;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_aligned_free_range_is_taken() {
        let taken =
            [SlotRange { offset: SlotIndex(0), length: 1 }, SlotRange { offset: SlotIndex(4), length: 3 }];
        let mut ranges = Ranges::new(64, 64, taken);

        let offsets: Vec<_> = [4, 1, 2, 1].map(|length| ranges.take(length).unwrap().offset.0).into();

        assert_eq!(offsets, [8, 1, 2, 12]);
    }

    #[test]
    fn no_more_slots_are_used_than_allowed() {
        let mut ranges = Ranges::new(64, 8, []);

        assert_eq!(ranges.take(5).map(|it| it.offset), Some(SlotIndex(0)));
        assert_eq!(ranges.take(1), None);
    }

    /// The worst case for first fit: one of many small ranges is left wherever a larger one could be.
    #[test]
    fn larger_ranges_fit_between_the_remains_of_smaller_ones() {
        let backends = 1024;
        let room = Room { services: 1, backends };
        let (slots, allowed) = (room.slots(), room.slots_in_use());
        let mut live: Vec<SlotRange> = Vec::new();

        for exponent in 0..=backends.ilog2() {
            let size = 1 << exponent;
            live.sort();
            live.dedup_by_key(|range| range.offset.0 / size);
            let mut ranges = Ranges::new(slots, allowed, live.iter().copied());
            while ranges.in_use + size <= allowed {
                live.push(ranges.take(size).expect("an allowed range fits"));
            }
        }
    }

    proptest! {
        #[test]
        fn everything_allowed_fits_and_ranges_do_not_overlap(
            steps in prop::collection::vec((1u32..=64, any::<prop::sample::Index>(), 0usize..4), 1..400),
        ) {
            let backends = 64;
            let room = Room { services: 1, backends };
        let (slots, allowed) = (room.slots(), room.slots_in_use());
            let mut live: Vec<SlotRange> = Vec::new();

            for (length, which, departures) in steps {
                let size = |range: &SlotRange| range.length.next_power_of_two();
                for _ in 0..departures.min(live.len()) {
                    let at = which.index(live.len());
                    live.swap_remove(at);
                }
                while live.iter().map(size).sum::<u32>() + length.next_power_of_two() > allowed {
                    live.remove(0);
                }
                let range = Ranges::new(slots, allowed, live.iter().copied()).take(length);

                let range = range.expect("an allowed range fits");
                prop_assert!(range.end().0 <= slots);
                let is_apart = |it: &SlotRange| it.end() <= range.offset || range.end() <= it.offset;
                prop_assert!(live.iter().all(is_apart));
                live.push(range);
            }
        }
    }
}
