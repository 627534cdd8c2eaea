//! Passing over backends that a new flow should not get.

use lb_common::{
    backend::BackendId,
    limits::{MAX_MEMBERS, SLOT_TRIES},
    pool::PoolSlot,
    reason::Reason,
};

use super::{
    next,
    offer::{self, Offer},
};
use crate::{family::Family, steps::Steps, table::scratch::Scratch};

/// Chooses the backend of the flow in [`Storage::scratch`](crate::storage::Storage::scratch): that of the slot, or the first one
/// after it that is usable, or any other of the pool that is. If none is, the best that was found.
///
/// Returns the slot where the search ended. Another search goes on with the next one.
#[inline(always)]
pub fn from<F: Family>(tables: &impl Steps<F>, slot: PoolSlot) -> Result<PoolSlot, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let pool = flow.schedule.get();
    let id = |slot| tables.slot(pool.slots().at(slot)).ok_or(Reason::Internal);
    // Nearly all flows get this one, so it is judged without a call.
    let mut best = offer::of(tables, id(slot)?);
    let (mut slot, mut tries) = (slot, 1);
    while tries < SLOT_TRIES && !best.is_usable() {
        slot = next(pool, slot);
        best = tables.better(best, id(slot)?);
        tries += 1;
    }
    if !best.is_usable() && pool.slots().length > SLOT_TRIES {
        best = among_members(tables, flow, slot, best)?;
    }
    flow.backend.set(best.backend()?);
    Ok(slot)
}

/// The first usable member of the pool. Where the search begins, and in which direction it goes, depends on the slot: so the
/// neighbours on both sides share the flows of a backend that fails.
#[inline(always)]
fn among_members<F: Family>(
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    slot: PoolSlot,
    mut best: Offer,
) -> Result<Offer, Reason> {
    let members = tables.members(flow.pool.get()).ok_or(Reason::Internal)?;
    let (slot, count) = (u64::from(slot.0), u64::from(members.count.load()));
    // 1 or count - 1, which is -1 modulo the count. Without a branch: the verifier would follow both through all steps.
    let step = ((slot / count.max(1)) & 1).wrapping_mul(count.wrapping_sub(2)).wrapping_add(1);
    let mut tries = 0;
    while tries < MAX_MEMBERS as u64 && tries < count && !best.is_usable() {
        let place = slot.wrapping_add(step.wrapping_mul(tries)) % count.max(1);
        let id = members.id.get(place as usize).ok_or(Reason::Internal)?;
        best = tables.better(best, BackendId(id.load()));
        tries += 1;
    }
    Ok(best)
}
