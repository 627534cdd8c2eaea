//! Pools: the backends of one service and family, and how new flows are shared among them.
//!
//! ```text
//!   POOLS[pool]: offset | length | picker | mode | sources
//!                  │                                └─▶ SOURCES[set]: addresses of xlb that backends see (full-nat)
//!                  └─▶ SLOTS[offset..offset + length]: ids of backends
//!   MEMBERS[pool]: each of these backends once
//! ```
//!
//! A range of slots and a set of sources never change while a pool names them, nor for a grace period after: a packet may
//! still be reading them. One 64-bit store switches to another schedule.

use crate::{
    cell::{HalfWord, Word},
    limits::{MAX_MEMBERS, MAX_SOURCE_SETS, MAX_SOURCES},
    net::Address,
    number::numbers,
    service::Mode,
};

numbers! {
    /// The number of a pool: its element of `POOLS` and of `TURNS`.
    PoolNumber,
    /// A slot of the array, which all pools share.
    SlotIndex,
    /// A slot of one pool, counted from the start of its range.
    PoolSlot,
    /// The number of a set of sources: its element of `SOURCES`.
    SourceSetNumber,
}

impl SourceSetNumber {
    /// No sources.
    pub const NONE: Self = Self(0);
}

/// The current word of a pool: `sources (16) | mode (4) | picker (3) | length (17) | offset (24)`.
///
/// Zero means that there is no pool: no picker has the number 0.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool(pub u64);

/// A range of slots. It is empty if no backend gets new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotRange {
    /// Its first slot.
    pub offset: SlotIndex,
    /// The number of slots.
    pub length: u32,
}

impl SlotRange {
    /// The slot after its last one.
    #[inline(always)]
    pub const fn end(self) -> SlotIndex {
        SlotIndex(self.offset.0 + self.length)
    }

    /// A slot of the pool that uses this range.
    #[inline(always)]
    pub const fn at(self, slot: PoolSlot) -> SlotIndex {
        SlotIndex(self.offset.0 + slot.0)
    }
}

macro_rules! pickers {
    ($($number:literal $picker:ident $how:literal)*) => {
        /// How a slot of the pool is chosen for a new flow: the scheduling method.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Picker {
            $(#[doc = $how] $picker = $number,)*
        }

        impl Picker {
            /// Every picker.
            pub const ALL: &'static [Self] = &[$(Self::$picker,)*];

            /// The picker with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$picker),)*
                    _ => None,
                }
            }
        }
    };
}

pickers! {
    1 Turn       "One slot after another."
    2 SourceHash "By the hash of the client's address."
    3 FlowHash   "By the hash of the whole tuple."
    4 LeastOfAll "The one whose backend has the fewest flows for its weight."
    5 LeastOfTwo "The same, of two that the hash of the tuple chooses."
}

impl Pool {
    const OFFSET_BITS: u32 = 24;
    const LENGTH_BITS: u32 = 17;
    const PICKER_BITS: u32 = 3;
    const MODE_BITS: u32 = 4;

    const LENGTH_AT: u32 = Self::OFFSET_BITS;
    const PICKER_AT: u32 = Self::LENGTH_AT + Self::LENGTH_BITS;
    const MODE_AT: u32 = Self::PICKER_AT + Self::PICKER_BITS;
    const SOURCES_AT: u32 = Self::MODE_AT + Self::MODE_BITS;

    /// No pool.
    pub const NONE: Self = Self(0);
    /// Offsets are below this.
    pub const OFFSETS: u32 = 1 << Self::OFFSET_BITS;
    /// Lengths are below this.
    pub const LENGTHS: u32 = 1 << Self::LENGTH_BITS;

    /// Builds the word. Each part must be within its range.
    #[inline(always)]
    pub const fn new(slots: SlotRange, picker: Picker, mode: Mode, sources: SourceSetNumber) -> Self {
        Self(
            slots.offset.0 as u64
                | (slots.length as u64) << Self::LENGTH_AT
                | (picker as u64) << Self::PICKER_AT
                | (mode as u64) << Self::MODE_AT
                | (sources.0 as u64) << Self::SOURCES_AT,
        )
    }

    #[inline(always)]
    const fn bits(self, at: u32, count: u32) -> u32 {
        (self.0 >> at) as u32 & ((1 << count) - 1)
    }

    /// The slots that new flows choose from.
    #[inline(always)]
    pub const fn slots(self) -> SlotRange {
        SlotRange {
            offset: SlotIndex(self.bits(0, Self::OFFSET_BITS)),
            length: self.bits(Self::LENGTH_AT, Self::LENGTH_BITS),
        }
    }

    /// How a slot is chosen. `None`: there is no such pool.
    #[inline(always)]
    pub const fn picker(self) -> Option<Picker> {
        Picker::from_number(self.bits(Self::PICKER_AT, Self::PICKER_BITS))
    }

    /// The mode of its flows.
    #[inline(always)]
    pub const fn mode(self) -> Option<Mode> {
        Mode::from_number(self.bits(Self::MODE_AT, Self::MODE_BITS))
    }

    /// Its set of sources.
    #[inline(always)]
    pub const fn sources(self) -> SourceSetNumber {
        SourceSetNumber((self.0 >> Self::SOURCES_AT) as u32)
    }
}

crate::plain!(Pool = "pool: sources 16, mode 4, picker 3, length 17, offset 24");

const _: () = assert!(Pool::SOURCES_AT + 16 == 64 && MAX_SOURCE_SETS == 1 << 16);

/// The round-robin counter of a pool, and the number of its ejected backends: an element of the `TURNS` array. It has a
/// cache line of its own, so that a pool with many new flows does not slow down the others.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Turn {
    /// How many slots have been chosen.
    pub taken: Word,
    /// How many backends of the pool are ejected.
    pub ejected: Word,
    /// Zero.
    pub zero: [u64; 6],
}

crate::fields!(Turn { taken, ejected, zero });

const _: () = assert!(size_of::<Turn>() == 64);

/// The slots of one cache line: an element of the `SLOTS` array. A slot holds the id of a backend, or 0 if it is free.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SlotLine {
    /// The ids, in the order of the slots.
    pub id: [HalfWord; Self::SLOTS],
}

impl SlotLine {
    /// Slots per line.
    pub const SLOTS: usize = 16;

    /// The slots that a range of this length occupies: whole lines.
    pub const fn occupied(length: u32) -> u32 {
        length.next_multiple_of(Self::SLOTS as u32)
    }

    /// The line of a slot.
    #[inline(always)]
    pub const fn line(slot: SlotIndex) -> u32 {
        slot.0 / Self::SLOTS as u32
    }

    /// The index of a slot within its line.
    #[inline(always)]
    pub const fn place(slot: SlotIndex) -> usize {
        slot.0 as usize % Self::SLOTS
    }
}

crate::fields!(SlotLine { id });

const _: () = assert!(size_of::<SlotLine>() == 64);

/// The backends in the slots of a pool, each once: an element of the `MEMBERS` array. A new flow tries them if the slots that it
/// tried are all of backends that it should not get. If there are more than [`MAX_MEMBERS`], these are spread evenly over all.
///
/// The controller replaces them while packets read them, so a packet may find former members beside present ones.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Members {
    /// How many there are.
    pub count: HalfWord,
    /// Their ids. Those after the last one are zero.
    pub id: [HalfWord; MAX_MEMBERS],
}

crate::fields!(Members { count, id });

const _: () = assert!(size_of::<Members>() == 4 * 64);

/// full-nat: the addresses of xlb that backends see. An element of the `SOURCES` array; all zero if the set is free.
/// Set 0 is always zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceSet {
    /// Repeated until the array is full, because the program selects one with a mask.
    pub address: [Address; MAX_SOURCES],
}

crate::fields!(SourceSet { address });

const _: () = assert!(size_of::<SourceSet>() == MAX_SOURCES * 16);
const _: () = assert!(MAX_SOURCES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let slots = SlotRange { offset: SlotIndex(Pool::OFFSETS - 1), length: Pool::LENGTHS - 1 };
        let full = Pool::new(slots, Picker::Turn, Mode::Nat, SourceSetNumber(0xffff));

        assert_eq!((full.slots(), full.sources()), (slots, SourceSetNumber(0xffff)));
        assert_eq!((full.picker(), full.mode()), (Some(Picker::Turn), Some(Mode::Nat)));

        let empty = Pool::new(SlotRange::default(), Picker::Turn, Mode::FullNat, SourceSetNumber::NONE);
        assert_eq!((empty.slots().length, empty.sources()), (0, SourceSetNumber::NONE));
        assert_eq!((empty.picker(), empty.mode()), (Some(Picker::Turn), Some(Mode::FullNat)));
    }

    #[test]
    fn a_word_has_its_picker() {
        for picker in Picker::ALL {
            let pool = Pool::new(SlotRange::default(), *picker, Mode::Nat, SourceSetNumber::NONE);

            assert_eq!(pool.picker(), Some(*picker));
        }
    }

    #[test]
    fn zero_is_no_pool() {
        assert_eq!(Pool::NONE.picker(), None);
    }

    #[test]
    fn each_slot_has_a_place_in_a_line() {
        for (slot, line, place) in [(15, 0, 15), (16, 1, 0)] {
            let slot = SlotIndex(slot);

            assert_eq!((SlotLine::line(slot), SlotLine::place(slot)), (line, place));
        }
    }
}
