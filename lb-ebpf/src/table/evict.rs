//! Choosing the record of a new flow.
//!
//! An empty, expired, closed, reset or half-open one, in this order (at the limit of half-open flows: expired, half-open,
//! empty, closed, reset). Never one of an established flow that is none of these.

use lb_common::{
    clock::{Age, Ticks},
    flow::{BucketIndex, Control, Record, State, WAYS},
    reason::Reason,
    settings::Settings,
};

use crate::{family::Family, opaque::opaque, storage::FlowTable, table::reply_index};

/// The best record of a bucket for a new flow. The lower score is better; of equal scores, the lower way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The cost of evicting it.
    pub score: Score,
    /// The record's way in its bucket.
    pub way: u32,
}

/// The cost of evicting a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(pub u64);

impl Score {
    /// An empty record.
    const EMPTY: Self = Self(0);
    const EXPIRED: Self = Self(1);
    const CLOSED: Self = Self(1 << 30);
    /// After closed flows, because the RST may be forged.
    const RESET: Self = Self(2 << 30);
    const HALF_OPEN: Self = Self(3 << 30);
    /// A record that must not be taken.
    const NEVER: Self = Self(1 << 33);

    /// Added to empty, closed and reset records from the limit of half-open flows on. Unless there is an expired record, a
    /// new flow then evicts a half-open flow, so that a flood does not use up the other records.
    const ABOVE_LIMIT: u64 = 4 << 30;
    /// Ages are limited to this, so that a score stays in its class.
    const OLDEST: u32 = (1 << 30) - 3;

    /// Does taking the record lose nothing? Otherwise the second bucket is checked for a better one.
    #[inline(always)]
    pub const fn is_free(self) -> bool {
        self.0 < Self::CLOSED.0
    }

    /// May the record be taken? If not even the best one may be, all records of the bucket belong to flows that must
    /// not be evicted.
    #[inline(always)]
    pub const fn may_take(self) -> bool {
        self.0 < Self::NEVER.0
    }

    /// A worse score.
    #[inline(always)]
    const fn plus(self, cost: u64) -> Self {
        Self(self.0 + cost)
    }

    /// The score, unknown to the verifier.
    #[inline(always)]
    fn hidden(self, key: u64) -> Self {
        Self(opaque(self.0, key))
    }
}

/// The best record of a bucket for a new flow of this protocol.
#[inline(always)]
pub fn candidate<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    bucket: BucketIndex,
    preferred: u32,
    protocol: u32,
    now: Ticks,
) -> Result<Candidate, Reason> {
    let bucket = table.bucket(bucket).ok_or(Reason::Internal)?;
    let half_open = table.half_open().ok_or(Reason::Internal)?.load();
    let limit = F::shape(settings).half_open;
    // Hidden from the verifier, which would otherwise explore the whole search once for each value.
    let unknown = half_open as u64;
    let above = opaque(if half_open >= i64::from(limit) { Score::ABOVE_LIMIT } else { 0 }, unknown);
    let mut best = Candidate { score: Score::NEVER.hidden(unknown), way: opaque(0, unknown) as u32 };
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (preferred + step) & (WAYS as u32 - 1);
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        let score = score(record, control, protocol, now, above).hidden(control.0);
        if score == Score::EMPTY {
            return Ok(Candidate { score, way }); // There is no better one.
        }
        // Of equal scores the first wins, which is closest to the preferred way.
        if score < best.score {
            best = Candidate { score, way };
        }
        step += 1;
    }
    Ok(best)
}

/// May a new flow of this protocol take the record?
#[inline(always)]
pub fn may_take<A: Copy, S>(record: &Record<A, S>, control: Control, protocol: u32, now: Ticks) -> bool {
    score(record, control, protocol, now, 0).may_take()
}

/// The cost of evicting a record. Within closed, reset and half-open, the oldest is cheapest.
#[inline(always)]
fn score<A: Copy, S>(
    record: &Record<A, S>,
    control: Control,
    protocol: u32,
    now: Ticks,
    above: u64,
) -> Score {
    let state = control.state();
    if state.0 == State::EMPTY.0 {
        return Score::EMPTY.plus(above);
    }
    if !state.holds_tuple() {
        return Score::NEVER;
    }
    let (seen, theirs) = (Ticks(record.last_seen.load()), record.owner.get().protocol());
    let age = Age::new(now, seen);
    if age.is_over(state.timeout(theirs)) {
        return Score::EXPIRED;
    }
    let youth = u64::from(Score::OLDEST - age.0.min(Score::OLDEST));
    if state.is_closed() {
        return Score::CLOSED.plus(above + 1 + youth);
    }
    if state.is_reset() {
        return Score::RESET.plus(above + youth);
    }
    if state.is_half_open() && !reply_index::outranks(theirs, protocol) {
        return Score::HALF_OPEN.plus(youth);
    }
    Score::NEVER
}
