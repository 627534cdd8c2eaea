//! Transitions: changes of a record's state, and of the counts that depend on it.
//!
//! Every change of the state of a flow goes through here, so the counts are exact at rest: the number of half-open flows
//! ([`half_open`]), and of the flows of each backend ([`Load`](lb_common::backend::Load)). A flow is counted before other
//! CPUs can see it, and discounted after they can see that it has ended, so the number of a backend's flows is never negative.

use lb_common::{
    backend::BackendId,
    flow::{Control, State},
};

use crate::{
    family::{Family, RecordOf},
    storage::FlowTable,
    table::half_open,
    table::record::Found,
};

/// Replaces the control word of a record if it is still `from`.
#[inline(always)]
pub fn replace<F: Family>(
    table: &impl FlowTable<F>,
    record: &RecordOf<F>,
    from: Control,
    to: Control,
) -> bool {
    // The owner of `from`, if the replacement succeeds: a record's owner changes only together with its generation.
    let backend = record.owner.get().backend();
    let (before, after) = (from.state(), to.state());
    let was_counted = before.is_counted();
    if !was_counted {
        table.count(backend, before, after);
    }
    let is_replaced = record.control.replace(from.0, to.0);
    if is_replaced == was_counted {
        let (before, after) = if is_replaced { (before, after) } else { (after, before) };
        table.count(backend, before, after);
    }
    is_replaced
}

/// Changes the state of the flow of `found`, if it is still that. The other nodes of a group are told if the flow becomes
/// [shared](State::is_shared), or is shared no more.
#[inline(always)]
pub fn change<F: Family>(table: &impl FlowTable<F>, found: &Found<'_, F>, to: State) -> bool {
    let from = found.control;
    let is_replaced = replace(table, found.record, from, from.with_state(to));
    if is_replaced && from.state().is_shared() != to.is_shared() {
        table.report(found.index, from.generation());
    }
    is_replaced
}

/// Publishes a flow in a record that this CPU has reserved.
#[inline(always)]
pub fn publish<F: Family>(table: &impl FlowTable<F>, record: &RecordOf<F>, mine: Control, state: State) {
    table.count(record.owner.get().backend(), State::BUSY, state);
    record.control.store(mine.with_state(state).0);
}

/// Changes the counts for a record of this backend.
#[inline(always)]
pub fn count<F: Family>(table: &impl FlowTable<F>, backend: BackendId, before: State, after: State) {
    let half_open = i64::from(after.is_half_open()) - i64::from(before.is_half_open());
    if half_open != 0 {
        half_open::count::<F>(table, half_open);
    }
    let flows = i64::from(after.is_counted()) - i64::from(before.is_counted());
    if flows != 0
        && let Some(load) = table.load(backend)
    {
        load.flows.fetch_add(flows as u64);
    }
}
