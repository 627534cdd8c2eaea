//! Loading memory before it is needed.

use lb_common::flow::LineIndex;

use crate::{
    family::Family, picker, steps::Steps, table::reply_index, table::reply_tuple, table::scratch::Scratch,
};

/// Loads the line of the reply index that a new flow will probably use: that of its first probe, unless another flow
/// takes the same slot first. `None`: the flow will be refused.
///
/// A new flow reads three random places of the table: its two buckets and this line. Each is a miss of cache and TLB. If the
/// addresses are known early, the CPU waits for all of them at once, so this runs before the buckets are searched. (BPF has
/// no instruction for it: this is a load whose value is ignored.)
#[inline(always)]
pub fn reply_line<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>) -> Option<LineIndex> {
    let settings = tables.settings();
    let pool = tables.pool(flow.pool.get())?;
    let slot = picker::likely(tables, flow, pool)?;
    flow.schedule.set(pool);
    flow.set_likely(Some(slot));
    let (_, backend) = reply_tuple::in_slot(tables, pool.slots(), slot).ok()?;
    let reply = reply_tuple::rewritten(tables, pool.mode()?, flow, backend, 0).ok()?.reversed();
    let index = reply_index::line_of(F::hash(&settings.keys, &reply), F::shape(settings));
    tables.line(index)?.entry[0].load();
    Some(index)
}
