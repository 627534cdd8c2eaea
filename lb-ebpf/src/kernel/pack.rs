//! Arguments and results of global functions as numbers: the verifier lets them take and return nothing else.

use lb_common::reason::Reason;

use crate::{opaque::opaque, packet::tcp::Segment, table::reply_index::Reserve};

// Records have 24 bits, so that these are no record's number.
const NO_RECORD: u32 = u32::MAX;
const MISSING: u32 = u32::MAX - 1;

/// A record's number, if there is one.
#[inline(always)]
pub fn record(number: Option<u32>) -> u32 {
    number.unwrap_or(NO_RECORD)
}

/// Whether and where a record was found. All that can fail about it is a missing element of the maps.
#[inline(always)]
pub fn found(found: Result<Option<u32>, Reason>) -> u32 {
    found.map_or(MISSING, record)
}

/// The opposite of [`found`].
#[inline(always)]
pub fn to_found(number: u32) -> Result<Option<u32>, Reason> {
    match number {
        MISSING => Err(Reason::Internal),
        NO_RECORD => Ok(None),
        _ => Ok(Some(number)),
    }
}

const DONE: u32 = u32::MAX;

/// A reason's number, or none.
#[inline(always)]
pub fn result(result: Result<(), Reason>) -> u32 {
    result.map_or_else(|reason| reason as u32, |()| DONE)
}

/// The opposite of [`result`].
#[inline(always)]
pub fn to_result(number: u32) -> Result<(), Reason> {
    if number == DONE {
        return Ok(());
    }
    // The compiler sees which numbers there are and would leave out the comparison that the verifier needs.
    Err(Reason::from_number(opaque(number.into(), number.into())))
}

/// Flags and acknowledgement of a segment in one word: a function has five arguments.
#[inline(always)]
pub fn segment(segment: Segment) -> u64 {
    u64::from(segment.flags) << 32 | u64::from(segment.acknowledgement)
}

/// The opposite of [`segment`].
#[inline(always)]
pub fn to_segment(packed: u64, sequence: u32) -> Segment {
    Segment { flags: (packed >> 32) as u8, acknowledgement: packed as u32, sequence }
}

/// The opposite of [`Reserve::rank`].
#[inline(always)]
pub fn to_reserve(rank: u64) -> Reserve {
    match rank {
        0 => Reserve::Mine,
        1 => Reserve::Taken,
        u64::MAX => Reserve::Missing,
        age => Reserve::Evictable(age - 2),
    }
}
