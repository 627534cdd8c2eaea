//! Slow path: before a request of no known flow, from time to time, flows that have expired are retired.
//!
//! A flow that has expired counts for its backend until it is retired. The daemon's sweep does that twice a minute. This path
//! does it whether a daemon runs or not: without one, backends with `max_flows` would stay full.

use lb_common::{clock::Ticks, flow::BucketIndex};

use crate::{
    family::Family,
    packet::frame::Frame,
    path::{pipeline::Verdict, slow::SlowPaths},
    steps::Steps,
    table::scratch::Scratch,
};

/// How many buckets are searched at a time: 512 records.
const BUCKETS: u32 = 64;
/// The time between two searches on one CPU.
const PAUSE: Ticks = Ticks(64);

/// Is it time for this CPU to search?
#[inline(always)]
pub fn is_due<F: Family>(flow: &Scratch<F>) -> bool {
    flow.now.get().0.wrapping_sub(flow.last_search.get().0) >= PAUSE.0
}

/// Searches the next buckets. The packet then goes on to its new flow.
#[inline(always)]
pub fn run<F: SlowPaths>(_: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    if let Some(flow) = tables.scratch() {
        let now = flow.now.get();
        let next = flow.next_bucket.get().0;
        let first = if next < F::shape(tables.settings()).buckets { next } else { 0 };
        flow.last_search.set(now);
        flow.next_bucket.set(BucketIndex(first + BUCKETS));
        let mut bucket = 0;
        while bucket < BUCKETS {
            // Beyond the last bucket there is nothing.
            tables.expire(BucketIndex(first + bucket), now);
            bucket += 1;
        }
        // It was chosen when the flows just retired still counted.
        flow.set_likely(None);
    }
    Verdict::Continue(F::NEW_FLOW)
}
