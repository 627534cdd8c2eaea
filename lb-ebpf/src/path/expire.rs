//! Slow path: a request of no known flow while all backends have their maximum of flows.
//!
//! A flow that has expired counts until its record is freed, which the daemon's sweep does twice a minute. While no daemon runs,
//! these requests do it, so that a service does not stay full. The request itself is dropped: the client repeats it.

use lb_common::{clock::Ticks, flow::BucketIndex, reason::Reason};

use crate::{
    family::Family, packet::frame::Frame, path::pipeline::Verdict, steps::Steps, table::scratch::Scratch,
};

/// How many buckets a request searches: 512 records.
const BUCKETS: u32 = 64;
/// The time between two searches on one CPU, so that a flood of refused requests costs little.
const PAUSE: Ticks = Ticks(4);

/// Retires the expired flows of the next buckets.
#[inline(always)]
pub fn run<F: Family>(_: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    if let Some(flow) = tables.scratch() {
        search(tables, flow);
    }
    Verdict::Refused(Reason::BackendsFull)
}

#[inline(always)]
fn search<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>) {
    let now = flow.now.get();
    if now.0.wrapping_sub(flow.searched.get().0) < PAUSE.0 {
        return;
    }
    flow.searched.set(now);
    let next = flow.next_searched.get().0;
    let first = if next < F::shape(tables.settings()).buckets { next } else { 0 };
    flow.next_searched.set(BucketIndex(first + BUCKETS));
    let mut bucket = 0;
    while bucket < BUCKETS {
        // Beyond the last bucket there is nothing.
        tables.expire(BucketIndex(first + bucket), now);
        bucket += 1;
    }
}
