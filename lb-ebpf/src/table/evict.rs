//! The record that a newcomer takes.
//!
//! An empty one, an expired, a closed or a half-open one, in this order; never one that is proven.

use lb_common::{
    clock::{age, is_over},
    flow::{Control, Record, Shape, State, WAYS},
};

use crate::{
    family::Family,
    opaque::opaque,
    table::reply_index,
    tables::{FlowTables, Tables},
};

/// From this on a look into the second bucket is worth it.
pub const BEST: u64 = 1 << 33;
/// No record of the bucket may be taken.
pub const NONE: u64 = NEVER << 3;
/// The score of a record that may not be taken.
pub const NEVER: u64 = u32::MAX as u64;

/// The record of a bucket that a newcomer may take: `score << 3 | way`, the lower the better.
#[inline(always)]
pub fn victim<F: Family, T: Tables + FlowTables<F>>(
    tables: &T,
    shape: Shape,
    bucket: u32,
    preferred: u32,
    protocol: u32,
    now: u32,
) -> u64 {
    let Some(bucket) = FlowTables::<F>::bucket(tables, bucket) else { return NONE };
    let half_open = FlowTables::<F>::half_open(tables).map_or(0, |word| word.load());
    // Both unknown, or the verifier would follow the whole search once for each value.
    let above = opaque(if half_open >= u64::from(shape.half_open) { ABOVE_LIMIT } else { 0 }, half_open);
    let mut best = opaque(NONE, half_open);
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (preferred + step) & (WAYS as u32 - 1);
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        let score = opaque(score(record, control, protocol, now, above), control.0);
        // Among equals the first wins, which is the nearest to the preferred way.
        if score < best >> 3 {
            best = score << 3 | u64::from(way);
        }
        step += 1;
    }
    best
}

const EXPIRED: u64 = 1;
const CLOSED: u64 = 1 << 30;
const HALF_OPEN: u64 = 2 << 30;
/// Above the limit of half-open flows a newcomer takes the place of one of them, if the bucket has one, before that of
/// a flow that is over, or one that is free: a flood may not have those.
const ABOVE_LIMIT: u64 = 3 << 30;
/// Ages are cut to this, so that a score keeps to its class.
const OLDEST: u32 = (1 << 30) - 3;

/// How little is lost with a record. Within closed and half-open the oldest goes first.
#[inline(always)]
pub fn score<A: Copy, S>(
    record: &Record<A, S>,
    control: Control,
    protocol: u32,
    now: u32,
    above: u64,
) -> u64 {
    let state = control.state();
    if state.0 == State::EMPTY.0 {
        return above;
    }
    if !state.holds_tuple() {
        return NEVER;
    }
    let (seen, theirs) = (record.last_seen.load(), record.owner.get().protocol());
    let age = age(now, seen);
    if is_over(age, state.timeout(theirs)) {
        return EXPIRED;
    }
    let youth = u64::from(OLDEST - age.min(OLDEST));
    if state.is_closed() {
        return (above | CLOSED) + 1 + youth;
    }
    if state.is_half_open() && !reply_index::outranks(theirs, protocol) {
        return HALF_OPEN + youth;
    }
    NEVER
}
