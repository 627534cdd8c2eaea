//! Arguments and results of global functions as numbers, the only types that the verifier allows.

use lb_common::{
    clock::{Age, Ticks},
    flow::{RecordIndex, WAYS},
    pool::{PoolSlot, SlotIndex, SlotRange},
    reason::Reason,
};

use crate::{
    opaque::opaque,
    packet::tcp::{Segment, Side},
    picker::least::Among,
    table::evict::{Candidate, Score},
    table::reply_index::Reserve,
};

// Indexes of records have 24 bits, so these are not valid.
const NO_RECORD: u32 = u32::MAX;
const MISSING: u32 = u32::MAX - 1;

/// A record's index, if there is one.
#[inline(always)]
pub fn record(index: Option<RecordIndex>) -> u32 {
    index.map_or(NO_RECORD, |index| index.0)
}

/// The result of a search for a record. The only possible error is a missing element of the maps.
#[inline(always)]
pub fn found(found: Result<Option<RecordIndex>, Reason>) -> u32 {
    found.map_or(MISSING, record)
}

/// The inverse of [`found`].
#[inline(always)]
pub fn to_found(number: u32) -> Result<Option<RecordIndex>, Reason> {
    match number {
        MISSING => Err(Reason::Internal),
        NO_RECORD => Ok(None),
        _ => Ok(Some(RecordIndex(number))),
    }
}

const DONE: u32 = u32::MAX;

/// A reason's number, or `DONE`.
#[inline(always)]
pub fn result(result: Result<(), Reason>) -> u32 {
    result.map_or_else(|reason| reason as u32, |()| DONE)
}

/// The inverse of [`result`].
#[inline(always)]
pub fn to_result(number: u32) -> Result<(), Reason> {
    if number == DONE {
        return Ok(());
    }
    // The compiler knows the possible numbers and would omit the bounds check that the verifier needs.
    Err(Reason::from_number(opaque(number.into(), number.into())))
}

/// Flags and acknowledgement of a segment in one word, because a function has at most five arguments.
#[inline(always)]
pub fn segment(segment: Segment) -> u64 {
    u64::from(segment.flags) << 32 | u64::from(segment.acknowledgement)
}

/// The inverse of [`segment`].
#[inline(always)]
pub fn to_segment(packed: u64, sequence: u32) -> Segment {
    Segment { flags: (packed >> 32) as u8, acknowledgement: packed as u32, sequence }
}

/// The sender of a packet, and the time since the packet before: at most 2^31 ticks, 26 days.
#[inline(always)]
pub fn sender(side: Side, idle: Ticks) -> u32 {
    idle.0 << 1 | u32::from(side == Side::Client)
}

/// The inverse of [`sender`].
#[inline(always)]
pub fn to_sender(packed: u32) -> (Side, Ticks) {
    (if packed & 1 != 0 { Side::Client } else { Side::Backend }, Ticks(packed >> 1))
}

const REASON: u64 = 1 << 32;

/// A slot, or a reason's number.
#[inline(always)]
pub fn slot(slot: Result<PoolSlot, Reason>) -> u64 {
    slot.map_or_else(|reason| REASON | reason as u64, |slot| slot.0.into())
}

/// The inverse of [`slot`].
#[inline(always)]
pub fn to_slot(packed: u64) -> Result<PoolSlot, Reason> {
    if packed & REASON == 0 {
        return Ok(PoolSlot(packed as u32));
    }
    let number = u64::from(packed as u32);
    // As in `to_result`.
    Err(Reason::from_number(opaque(number, number)))
}

/// A range of slots.
#[inline(always)]
pub const fn range(slots: SlotRange) -> u64 {
    pair(slots.offset.0, slots.length)
}

/// The inverse of [`range`].
#[inline(always)]
pub const fn to_range(packed: u64) -> SlotRange {
    SlotRange { offset: SlotIndex(packed as u32), length: (packed >> 32) as u32 }
}

/// The slots to compare, in two numbers.
#[inline(always)]
pub const fn among(among: Among) -> (u64, u64) {
    (pair(among.first.0, among.stride), pair(among.count, among.added))
}

/// The inverse of [`among`].
#[inline(always)]
pub const fn to_among(first: u64, second: u64) -> Among {
    Among {
        first: PoolSlot(first as u32),
        stride: (first >> 32) as u32,
        count: second as u32,
        added: (second >> 32) as u32,
    }
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

// Above all scores.
const NO_BUCKET: u64 = u64::MAX;
const WAY_BITS: u32 = WAYS.ilog2();

/// A record to evict: its score in the high bits, its way in the low three. The only possible error is a missing element
/// of the maps.
#[inline(always)]
pub fn candidate(candidate: Result<Candidate, Reason>) -> u64 {
    candidate.map_or(NO_BUCKET, |it| it.score.0 << WAY_BITS | u64::from(it.way))
}

/// The inverse of [`candidate`].
#[inline(always)]
pub fn to_candidate(packed: u64) -> Result<Candidate, Reason> {
    if packed == NO_BUCKET {
        return Err(Reason::Internal);
    }
    Ok(Candidate { score: Score(packed >> WAY_BITS), way: packed as u32 & (WAYS as u32 - 1) })
}

/// The result of a reservation: its rank.
#[inline(always)]
pub fn reserve(reserve: Reserve) -> u64 {
    reserve.rank()
}

/// The inverse of [`reserve`].
#[inline(always)]
pub fn to_reserve(rank: u64) -> Reserve {
    match rank {
        0 => Reserve::Mine,
        1 => Reserve::Taken,
        u64::MAX => Reserve::Missing,
        age => Reserve::Evictable(Age((age - 2) as u32)),
    }
}
