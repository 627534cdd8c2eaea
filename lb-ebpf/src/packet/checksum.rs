//! Internet checksums, by difference.
//!
//! A checksum HC covers 16-bit words by their one's-complement sum. When a word changes from m to m',
//!
//! ```text
//! HC' = ~(~HC + ~m + m')                                    RFC 1624, eqn. 3
//! ```
//!
//! Three facts make that cheap and safe:
//!
//! 1. Sums do not depend on byte order (RFC 1071, 2 B): words are added as they are in memory, never swapped.
//! 2. `~m + m'` depends on the flow alone, so it is summed over all words once, when the flow is created
//!    ([`Difference`]). The other direction undoes the change: its difference is the complement.
//! 3. Folding never turns a nonzero sum into zero, so the result is bit for bit what a sender would compute, not merely
//!    equivalent: unlike RFC 1141, eqn. 3 never yields 0xffff where 0x0000 is right.

use lb_common::net::{V4, V6};

/// A sum of `~m + m'` over the words that change, not yet folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Difference(u64);

impl Difference {
    /// No change.
    pub const NONE: Self = Self(0);

    /// Adds the change of a 16-bit word.
    #[inline(always)]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Adds the change of a 32-bit word.
    #[inline(always)]
    pub const fn double(self, old: u32, new: u32) -> Self {
        Self(self.0 + halves(!old) + halves(new))
    }

    /// Adds the change of an IPv4 address.
    #[inline(always)]
    pub const fn v4(self, old: V4, new: V4) -> Self {
        self.double(old.0, new.0)
    }

    /// Adds the change of an IPv6 address.
    #[inline(always)]
    pub const fn v6(self, old: V6, new: V6) -> Self {
        self.double(old.0 as u32, new.0 as u32)
            .double((old.0 >> 32) as u32, (new.0 >> 32) as u32)
            .double(old.1 as u32, new.1 as u32)
            .double((old.1 >> 32) as u32, (new.1 >> 32) as u32)
    }

    /// Combines two changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Folds the sum to 16 bits.
    #[inline(always)]
    pub const fn folded(self) -> Folded {
        Folded(fold(self.0))
    }

    /// The checksum after the change.
    #[inline(always)]
    pub const fn update(self, checksum: [u8; 2]) -> [u8; 2] {
        self.folded().update(checksum)
    }
}

/// The sum of a header that is built from scratch, not yet folded.
///
/// Words are added as they are in memory, like those of a [`Difference`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// No words.
    pub const EMPTY: Self = Self(0);

    /// Adds a 16-bit word.
    #[inline(always)]
    pub const fn word(self, word: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(word) as u64)
    }

    /// Adds a 32-bit word.
    #[inline(always)]
    pub const fn double(self, double: [u8; 4]) -> Self {
        Self(self.0 + halves(u32::from_ne_bytes(double)))
    }

    /// Adds an IPv4 address.
    #[inline(always)]
    pub const fn v4(self, address: V4) -> Self {
        self.double(address.to_bytes())
    }

    /// Adds an IPv6 address.
    #[inline(always)]
    pub const fn v6(self, address: V6) -> Self {
        let V6(high, low) = address;
        let sums = halves(high as u32) + halves((high >> 32) as u32) + halves(low as u32);
        Self(self.0 + sums + halves((low >> 32) as u32))
    }

    /// Combines two sums.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        (!fold(self.0)).to_ne_bytes()
    }
}

/// A [`Difference`] in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Folded(pub u16);

impl Folded {
    /// Combines two changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The checksum after the change.
    #[inline(always)]
    pub const fn update(self, checksum: [u8; 2]) -> [u8; 2] {
        (!add(!u16::from_ne_bytes(checksum), self.0)).to_ne_bytes()
    }

    /// The UDP checksum after the change: none (0) stays none, and a sum of 0 is sent as 0xffff (RFC 768).
    #[inline(always)]
    pub const fn update_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        if u16::from_ne_bytes(checksum) == 0 {
            return checksum;
        }
        let updated = u16::from_ne_bytes(self.update(checksum));
        (if updated == 0 { 0xffff } else { updated }).to_ne_bytes()
    }
}

/// TTL and protocol share a word, so decrementing the TTL is the same difference for every packet.
pub const ONE_HOP: Folded = Difference::NONE.word(u16::from_ne_bytes([1, 0]), 0).folded();

#[inline(always)]
const fn halves(word: u32) -> u64 {
    (word & 0xffff) as u64 + (word >> 16) as u64
}

/// Folds the carries. Two steps are not enough for sums of many words; three are enough for any value below 2^48.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The one's-complement sum of two words: one carry at most.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 in full: the checksum that a sender computes.
    fn recompute(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero_and_not_ffff() {
        // RFC 1624, section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285.
        let updated = Difference::NONE.word(0x5555, 0x3285).update(0xdd2f_u16.to_ne_bytes());

        assert_eq!(u16::from_ne_bytes(updated), 0x0000);
    }

    #[test]
    fn a_sum_is_that_of_rfc_1071() {
        // RFC 1071, section 3: 00 01 f2 03 f4 f5 f6 f7 has the sum ddf2.
        let sum = Sum::EMPTY.double([0x00, 0x01, 0xf2, 0x03]).and(Sum::EMPTY.word([0xf4, 0xf5]));

        assert_eq!(sum.word([0xf6, 0xf7]).checksum(), [!0xdd, !0xf2]);
        assert_eq!(Sum::EMPTY.double([0xff; 4]).word([0, 1]).checksum(), [0xff, 0xfe]);
    }

    #[test]
    fn udp_keeps_no_checksum_and_never_sends_zero() {
        let change = Difference::NONE.word(0x5555, 0x3285);

        assert_eq!(change.folded().update_udp([0, 0]), [0, 0]);
        assert_eq!(change.folded().update_udp(0xdd2f_u16.to_ne_bytes()), [0xff, 0xff]);
    }

    #[test]
    fn one_hop_less_is_the_same_difference_for_every_ttl_and_protocol() {
        for ttl in 1..=255u8 {
            for protocol in 0..=255u8 {
                let rest = 0x1234;
                let old = u16::from_ne_bytes([ttl, protocol]);
                let new = u16::from_ne_bytes([ttl - 1, protocol]);
                let checksum = recompute(&[old, rest]).to_ne_bytes();

                assert_eq!(u16::from_ne_bytes(ONE_HOP.update(checksum)), recompute(&[new, rest]));
            }
        }
    }

    /// 10 million cases, weighted towards corners: an update equals a recomputation bit for bit, in both directions.
    #[test]
    fn an_update_equals_a_full_recomputation() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // A quarter of all words are the corners.
            match random >> 61 {
                0 => 0x0000,
                1 => 0xffff,
                _ => (random >> 16) as u16,
            }
        };
        for _ in 0..10_000_000 {
            let kept = next() | 1; // The protocol number, so that the words are never all zero.
            let (old, new) = ([next(), next(), next()], [next(), next(), next()]);
            let before = recompute(&[kept, old[0], old[1], old[2]]);
            let after = recompute(&[kept, new[0], new[1], new[2]]);
            let change = Difference::NONE.word(old[0], new[0]).double(
                u32::from(old[1]) << 16 | u32::from(old[2]),
                u32::from(new[1]) << 16 | u32::from(new[2]),
            );
            let folded = change.folded();

            assert_eq!(u16::from_ne_bytes(change.update(before.to_ne_bytes())), after);
            assert_eq!(u16::from_ne_bytes(folded.update(before.to_ne_bytes())), after);
            assert_eq!(u16::from_ne_bytes(Folded(!folded.0).update(after.to_ne_bytes())), before);
        }
    }
}
