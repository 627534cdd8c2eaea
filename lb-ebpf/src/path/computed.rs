//! A TCP segment of no known flow, whose flow another node may know: its backend follows from the tuple.
//!
//! The nodes of a group that have the same pool of computed slots need not tell each other of flows to the backends that they
//! compute (`share_flows = "exceptions"`). When a node gets segments of such a flow for the first time, it makes a half-open
//! record, which is confirmed when the other side sends a segment, too ([`crate::table::handshake`]): a record that a forged
//! segment has made is never confirmed, because the backend answers with a RST.

use lb_common::{
    backend::{Backend, BackendId},
    pool::{Pool, PoolNumber, PoolSlot},
    reason::Reason,
    service::Service,
};

use crate::{
    family::Family,
    mode, picker,
    steps::Steps,
    table::record::{self, States},
    table::scratch::Scratch,
};

/// The backend that follows from the tuple.
#[inline(always)]
pub fn backend_of<'a, F: Family>(tables: &'a impl Steps<F>, flow: &Scratch<F>) -> Option<&'a Backend> {
    let pool = tables.pool(pool_of(flow)?)?;
    let slot = picker::pick(tables, flow, pool).ok()?;
    choose(tables, flow, pool, slot).ok()?;
    tables.backend(flow.backend.get())
}

#[inline(always)]
fn pool_of<F: Family>(flow: &Scratch<F>) -> Option<PoolNumber> {
    Service { computed: flow.computed.get(), ..Service::default() }.computed_pool()
}

/// Decides whether a segment that is no SYN may open a flow, and selects the computed pool.
#[inline(always)]
pub fn admit<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>) -> Result<(), Reason> {
    let pool = pool_of(flow).filter(|_| flow.going_on().is_some()).ok_or(Reason::NoFlow)?;
    if tables.pool(pool).ok_or(Reason::Internal)?.slots().length == 0 {
        return Err(Reason::NoFlow);
    }
    // What the controller has ended stays ended.
    if record::anywhere(tables, States::ENDED, None)?.is_some() {
        return Err(Reason::NoFlow);
    }
    flow.pool.set(pool);
    Ok(())
}

/// Gives the flow the backend of its slot and no other, whether that takes new flows or not.
#[inline(always)]
pub fn choose<F: Family>(
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    pool: Pool,
    slot: PoolSlot,
) -> Result<(), Reason> {
    // A backend without an id has no flows.
    let id = tables.slot(pool.slots().at(slot)).filter(|id| *id != BackendId::NONE).ok_or(Reason::NoFlow)?;
    let backend = tables.backend(id).filter(|backend| backend.id == id).ok_or(Reason::NoFlow)?;
    let mode = pool.mode().ok_or(Reason::Internal)?;
    if !mode::can_serve::<F>(mode, flow.tuple.get().source, F::from_key(backend.address)) {
        return Err(Reason::NoFlow);
    }
    flow.backend.set(id);
    Ok(())
}
