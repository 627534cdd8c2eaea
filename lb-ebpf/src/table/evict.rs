//! Choosing the record of a new flow.
//!
//! An empty, expired, closed, reset or half-open one, in this order; never one of a live connection.

use lb_common::{
    clock::{Age, Ticks},
    flow::{BucketIndex, Control, Record, State, WAYS},
};

use crate::{family::Family, opaque::opaque, storage::Storage, table::reply_index};

/// A record of a bucket that a new flow may take: its score in the high bits, its way in the low three, so that one
/// comparison finds the better of two. Lower is better.
///
/// Not an `Option`: LLVM would leave the payload of a `None` uninitialized, and the verifier does not allow that to be
/// copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate(pub u64);

impl Candidate {
    /// All records of the bucket belong to live connections.
    pub const NONE: Self = Self(NEVER << 3);
    /// An element of the maps is missing ([`Reason::Internal`](lb_common::reason::Reason::Internal)).
    pub const MISSING: Self = Self(u64::MAX);

    /// Does taking it lose nothing? Otherwise the second bucket is checked for a better one.
    #[inline(always)]
    pub const fn is_free(self) -> bool {
        self.0 < CLOSED << 3
    }

    /// Is there one?
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 < Self::NONE.0
    }

    /// The record's way in its bucket.
    #[inline(always)]
    pub const fn way(self) -> u32 {
        self.0 as u32 & (WAYS as u32 - 1)
    }
}

/// The best record of a bucket for a new flow of this protocol.
#[inline(always)]
pub fn candidate<F: Family>(
    storage: &impl Storage<F>,
    bucket: BucketIndex,
    preferred: u32,
    protocol: u32,
    now: Ticks,
) -> Candidate {
    let (Some(bucket), Some(half_open)) = (storage.bucket(bucket), storage.half_open()) else {
        return Candidate::MISSING;
    };
    let limit = F::shape(storage.settings()).half_open;
    let half_open = half_open.load();
    // Both unknown, or the verifier would explore the whole search once for each value.
    let unknown = half_open as u64;
    let above = opaque(if half_open >= i64::from(limit) { ABOVE_LIMIT } else { 0 }, unknown);
    let mut best = opaque(Candidate::NONE.0, unknown);
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (preferred + step) & (WAYS as u32 - 1);
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        let score = opaque(score(record, control, protocol, now, above), control.0);
        if score == 0 {
            return Candidate(way.into()); // There is no better one.
        }
        // Of equal scores the first wins, which is closest to the preferred way.
        if score < best >> 3 {
            best = score << 3 | u64::from(way);
        }
        step += 1;
    }
    Candidate(best)
}

/// May a new flow of this protocol take the record?
#[inline(always)]
pub fn may_take<A: Copy, S>(record: &Record<A, S>, control: Control, protocol: u32, now: Ticks) -> bool {
    score(record, control, protocol, now, 0) < NEVER
}

/// The score of a record that may not be taken.
const NEVER: u64 = 1 << 33;

const EXPIRED: u64 = 1;
const CLOSED: u64 = 1 << 30;
/// After closed flows, because the RST may be forged.
const RESET: u64 = 2 << 30;
const HALF_OPEN: u64 = 3 << 30;
/// Added to empty, closed and reset records above the limit of half-open flows. A new flow then evicts a half-open flow
/// first, so that a flood does not consume the others.
const ABOVE_LIMIT: u64 = 4 << 30;
/// Ages are limited to this, so that a score stays in its class.
const OLDEST: u32 = (1 << 30) - 3;

/// The cost of evicting a record. Within closed, reset and half-open, the oldest is cheapest.
#[inline(always)]
fn score<A: Copy, S>(record: &Record<A, S>, control: Control, protocol: u32, now: Ticks, above: u64) -> u64 {
    let state = control.state();
    if state.0 == State::EMPTY.0 {
        return above;
    }
    if !state.holds_tuple() {
        return NEVER;
    }
    let (seen, theirs) = (Ticks(record.last_seen.load()), record.owner.get().protocol());
    let age = Age::new(now, seen);
    if age.is_over(state.timeout(theirs)) {
        return EXPIRED;
    }
    let youth = u64::from(OLDEST - age.0.min(OLDEST));
    if state.is_closed() {
        return (above | CLOSED) + 1 + youth;
    }
    if state.is_reset() {
        return (above | RESET) + youth;
    }
    if state.is_half_open() && !reply_index::outranks(theirs, protocol) {
        return HALF_OPEN + youth;
    }
    NEVER
}
