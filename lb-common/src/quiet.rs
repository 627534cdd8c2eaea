//! Packets of no known flow, in a group of nodes. Another node may know the flow; then an answer would end it.

use crate::clock::{Age, Ticks};

/// Are packets of no known flow answered?
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quiet {
    /// Yes.
    #[default]
    No = 0,
    /// Those of a flow that was [first seen](FirstSeen) [a while](FirstSeen::WHILE) ago: a node that is out of reach may come back
    /// and tell of the flow.
    AtFirst = 1,
    /// No.
    Always = 2,
}

impl Quiet {
    /// What the program does for this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::No,
            1 => Self::AtFirst,
            _ => Self::Always,
        }
    }
}

/// An element of the `FIRST_SEEN` map: `hash of a tuple, upper half (32) | when its first packet came (32)`.
///
/// Tuples share elements, and the later one takes it. So under a flood, packets are not answered.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstSeen(pub u64);

crate::plain!(FirstSeen = "first seen: hash 32, time 32");

impl FirstSeen {
    /// The number of elements, a power of two.
    pub const ELEMENTS: u32 = 8192;
    /// From the first packet until later ones are answered. A node that can be reached again is connected within 1.6 s, and TCP
    /// repeats a segment after 0.2, 0.6, 1.4 and 3 s.
    pub const WHILE: Ticks = Ticks::from_ns(2_500_000_000);
    /// TCP repeats a segment within this time (RFC 6298, 2.4 allows no less than a minute). A later packet is a first one.
    const REPEATED: Ticks = Ticks::from_seconds(121);

    /// The element of a tuple with this hash.
    #[inline(always)]
    pub const fn place(hash: u64) -> u32 {
        hash as u32 & (Self::ELEMENTS - 1)
    }

    /// A packet of a tuple with this hash has come for the first time.
    #[inline(always)]
    pub const fn new(hash: u64, now: Ticks) -> Self {
        Self(hash >> 32 << 32 | now.0 as u64)
    }

    /// How long ago the first packet of a tuple with this hash came. `None`: it has not come.
    #[inline(always)]
    pub const fn age(self, hash: u64, now: Ticks) -> Option<Age> {
        let age = Age::new(now, Ticks(self.0 as u32));
        if self.0 >> 32 == hash >> 32 && !age.is_over(Self::REPEATED) { Some(age) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_is_known_by_the_upper_half_of_its_hash_until_it_is_not_repeated_any_more() {
        let (hash, then) = (0x1234_5678_9abc_def0, Ticks(u32::MAX - 100));
        let seen = FirstSeen::new(hash, then);
        let later = |seconds| Ticks(then.0.wrapping_add(Ticks::from_seconds(seconds).0));

        assert_eq!(seen.age(hash, later(120)).map(Age::elapsed), Some(Ticks::from_seconds(120)));
        assert_eq!(seen.age(hash, later(122)), None);
        assert_eq!(seen.age(hash + (1 << 32), then), None);
        assert_eq!(FirstSeen::place(hash), 0x9abc_def0 % FirstSeen::ELEMENTS);
    }

    #[test]
    fn what_a_later_version_writes_is_the_safe_one() {
        assert_eq!(
            [0, 1, 2, 3].map(Quiet::from_number),
            [Quiet::No, Quiet::AtFirst, Quiet::Always, Quiet::Always]
        );
    }
}
