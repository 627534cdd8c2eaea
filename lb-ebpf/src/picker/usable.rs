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

/// Chooses the backend of the flow in [`Storage::scratch`](crate::storage::Storage::scratch): that of its slot, or of the first
/// slot after it whose backend is usable, or else a usable member of the pool. If there is none, the best that was found.
#[inline(always)]
pub fn from<F: Family>(tables: &impl Steps<F>, slot: PoolSlot) -> Result<(), Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let pool = flow.schedule.get();
    // A free slot is not a pool's.
    let id =
        |slot| tables.slot(pool.slots().at(slot)).filter(|id| *id != BackendId::NONE).ok_or(Reason::Internal);
    // Nearly all flows get this one, so it is judged without a call.
    let mut best = offer::of(tables, id(slot)?);
    let (mut tried, mut tries) = (slot, 1);
    while tries < SLOT_TRIES && !best.is_usable() {
        tried = next(pool, tried);
        best = tables.better(best, id(tried)?);
        tries += 1;
    }
    if !best.is_usable() && pool.slots().length > SLOT_TRIES {
        best = best_member(tables, flow, slot.0.into(), best)?;
    }
    flow.backend.set(best.backend()?);
    Ok(())
}

/// The reply tuple of the chosen backend is in use: chooses again as [`from`] does, among the members only. Each probe begins with
/// another one, in their order.
#[inline(always)]
pub fn instead<F: Family>(tables: &impl Steps<F>, slot: PoolSlot, probe: u32) -> Result<(), Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let best = best_member(tables, flow, u64::from(slot.0) + u64::from(probe), Offer::TAKEN)?;
    flow.backend.set(best.backend()?);
    Ok(())
}

/// The first usable member of the pool, from this place on. The direction depends on the place: so the neighbours on both sides
/// share the flows of a backend that fails.
#[inline(always)]
fn best_member<F: Family>(
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    first: u64,
    mut best: Offer,
) -> Result<Offer, Reason> {
    let members = tables.members(flow.pool.get()).ok_or(Reason::Internal)?;
    let count = u64::from(members.count.load());
    // 1 or count - 1, which is -1 modulo the count. Without a branch: the verifier would follow both through all steps.
    let step = ((first / count.max(1)) & 1).wrapping_mul(count.wrapping_sub(2)).wrapping_add(1);
    let mut tries = 0;
    while tries < MAX_MEMBERS as u64 && tries < count && !best.is_usable() {
        let place = first.wrapping_add(step.wrapping_mul(tries)) % count.max(1);
        let id = members.id.get(place as usize).ok_or(Reason::Internal)?;
        best = tables.better(best, BackendId(id.load()));
        tries += 1;
    }
    Ok(best)
}
