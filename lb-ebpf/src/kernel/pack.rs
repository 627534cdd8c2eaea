//! Arguments and results of global functions as numbers: the verifier lets them take and return nothing else.

use lb_common::reason::Reason;

use crate::{packet::tcp::Segment, table::reply_index::Reserve};

const NO_RECORD: u32 = u32::MAX;

/// A record's number, if there is one.
#[inline(always)]
pub fn record(number: Option<u32>) -> u32 {
    number.unwrap_or(NO_RECORD)
}

/// The opposite of [`record`].
#[inline(always)]
pub fn to_record(number: u32) -> Option<u32> {
    (number != NO_RECORD).then_some(number)
}

/// Zero for success, else one more than the reason's number.
#[inline(always)]
pub fn result(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32 + 1,
    }
}

/// The opposite of [`result`].
#[inline(always)]
pub fn to_result(number: u32) -> Result<(), Reason> {
    if number == 0 {
        return Ok(());
    }
    let number = (number - 1) as usize;
    if number >= Reason::ALL.len() {
        return Err(Reason::Contended);
    }
    // SAFETY: `Reason` is `repr(u32)`, its numbers are 0..ALL.len() without a gap (a test of lb-common says so).
    Err(unsafe { core::mem::transmute::<u32, Reason>(number as u32) })
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
        age => Reserve::Evictable(age - 2),
    }
}
