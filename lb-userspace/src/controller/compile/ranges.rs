//! Free ranges of slots: first fit in one half of the array, in whole lines.
//!
//! Normally all ranges that pools use are in one half. A range takes the lowest gap there. If no gap is long enough, all
//! ranges are moved to the other half ([`Layout::Move`]), where nothing is in use. That always fits: a half has
//! half as many slots again as may be in force.
//!
//! If a daemon is killed during such a move, both halves have ranges in use. The next plan for everything completes it.

use std::collections::BTreeMap;

use lb_common::{
    limits::Room,
    pool::{SlotIndex, SlotLine, SlotRange},
};

/// Where the ranges of a plan lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A range stays where it is if its contents stay. Others are in this half.
    Keep(Half),
    /// All ranges are in this half.
    Move(Half),
}

impl Layout {
    /// Where new ranges are.
    pub const fn half(self) -> Half {
        match self {
            Self::Keep(half) | Self::Move(half) => half,
        }
    }

    /// May a range stay?
    pub const fn keeps(self, room: Room, range: SlotRange) -> bool {
        match self {
            Self::Keep(_) => true,
            Self::Move(half) => half.contains(room, range),
        }
    }
}

/// A half of the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Lower,
    Upper,
}

impl Half {
    pub const fn other(self) -> Self {
        match self {
            Self::Lower => Self::Upper,
            Self::Upper => Self::Lower,
        }
    }

    /// Its first slot, and the slot after its last one.
    const fn bounds(self, room: Room) -> (u32, u32) {
        let slots = room.half_slots();
        match self {
            Self::Lower => (0, slots),
            Self::Upper => (slots, 2 * slots),
        }
    }

    pub const fn contains(self, room: Room, range: SlotRange) -> bool {
        let (first, end) = self.bounds(room);
        range.offset.0 >= first && range.end().0 <= end
    }

    /// The half with more of the slots in force.
    pub fn in_use(room: Room, in_force: impl Iterator<Item = SlotRange>) -> Self {
        let (lower, upper) = in_force.fold((0, 0), |(lower, upper), range| {
            let is_lower = Self::Lower.contains(room, range);
            if is_lower { (lower + range.length, upper) } else { (lower, upper + range.length) }
        });
        if lower >= upper { Self::Lower } else { Self::Upper }
    }
}

/// The used slots of one half, and where to continue the search for free ones.
#[derive(Debug)]
pub struct Ranges {
    /// First slot -> slot after the last one.
    taken: BTreeMap<u32, u32>,
    end: u32,
    /// By length: no free range begins below this.
    from: BTreeMap<u32, u32>,
    first: u32,
}

impl Ranges {
    /// A half with these ranges taken. Those in the other half do not matter.
    pub fn new(room: Room, half: Half, taken: impl IntoIterator<Item = SlotRange>) -> Self {
        let (first, end) = half.bounds(room);
        let taken = taken.into_iter().map(|range| (range.offset.0, range.end().0)).collect();
        Self { taken, end, from: BTreeMap::new(), first }
    }

    /// Takes the lowest gap.
    pub fn take(&mut self, length: u32) -> Option<SlotRange> {
        let size = SlotLine::occupied(length);
        let from = self.from.get(&size).copied().unwrap_or(self.first);
        let mut offset = from;
        for (at, end) in self.taken_from(from) {
            if offset + size <= at {
                break;
            }
            offset = offset.max(SlotLine::occupied(end));
        }
        if offset + size > self.end {
            return None;
        }
        self.from.insert(size, offset + size);
        self.taken.insert(offset, offset + size);
        Some(SlotRange { offset: SlotIndex(offset), length })
    }

    /// The used ranges that end after this slot.
    fn taken_from(&self, slot: u32) -> impl Iterator<Item = (u32, u32)> {
        let before = self.taken.range(..slot).next_back();
        before.into_iter().chain(self.taken.range(slot..)).map(|(at, end)| (*at, *end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room { services: 1, backends: 1, slots: 256 };

    #[test]
    fn the_lowest_gap_in_whole_lines_is_taken() {
        let mut ranges = Ranges::new(ROOM, Half::Lower, [at(0, 1), at(48, 20)]);

        let offsets = [17, 1, 16, 33, 1].map(|length| ranges.take(length).unwrap().offset.0);

        assert_eq!(offsets, [16, 80, 96, 112, 160]);
    }

    #[test]
    fn nothing_is_taken_in_the_other_half() {
        for (half, first) in [(Half::Lower, 0), (Half::Upper, 384)] {
            let mut ranges = Ranges::new(ROOM, half, [at(first, 16), at(384 - first, 16)]);

            assert_eq!(ranges.take(368), Some(at(first + 16, 368)), "{half:?}");
            assert_eq!(ranges.take(1), None, "{half:?}");
        }
    }

    #[test]
    fn a_half_is_in_use_if_it_has_most_of_the_slots() {
        assert_eq!(Half::in_use(ROOM, [].into_iter()), Half::Lower);
        assert_eq!(Half::in_use(ROOM, [at(0, 5), at(384, 6)].into_iter()), Half::Upper);
    }

    proptest! {
        #[test]
        fn ranges_do_not_overlap_and_all_that_may_be_in_force_fit_into_an_empty_half(
            lengths in prop::collection::vec(1u32..=64, 1..30),
        ) {
            let mut ranges = Ranges::new(ROOM, Half::Upper, []);
            let mut live: Vec<SlotRange> = Vec::new();
            for length in lengths {
                if live.iter().map(|it| SlotLine::occupied(it.length)).sum::<u32>() + SlotLine::occupied(length) > ROOM.slots {
                    break;
                }
                let range = ranges.take(length).expect("a range that may be in force fits");

                prop_assert!(Half::Upper.contains(ROOM, range));
                prop_assert!(range.offset.0.is_multiple_of(16));
                prop_assert!(live.iter().all(|it| it.end() <= range.offset || range.end() <= it.offset));
                live.push(range);
            }
        }
    }

    fn at(offset: u32, length: u32) -> SlotRange {
        SlotRange { offset: SlotIndex(offset), length }
    }
}
