//! Retiring flows that have expired.

use lb_common::{
    cell::fence,
    clock::{Age, Ticks},
    flow::{BucketIndex, Control, State, WAYS},
};

use crate::{family::Family, storage::FlowTable, table::transition};

/// Retires the expired flows of a bucket. Their backends are not told: see [`State`].
#[inline(always)]
pub fn in_bucket<F: Family>(table: &impl FlowTable<F>, index: BucketIndex, now: Ticks) {
    let Some(bucket) = table.bucket(index) else { return };
    let mut way = 0;
    while way < WAYS {
        let record = &bucket.way[way];
        let control = Control(record.control.load());
        way += 1;
        // If the record changes owner after this, its control word changes, too, and is not replaced.
        fence();
        let (seen, protocol) = (Ticks(record.last_seen.load()), record.owner.get().protocol());
        if control.state().is_live() && Age::new(now, seen).is_over(control.state().timeout(protocol)) {
            transition::replace(table, record, control, control.with_state(State::RETIRED));
        }
    }
}
