//! Pickers (scheduling methods): how a slot of the pool is chosen for a new flow. Each has a file, and a line in
//! [`pick`] and in [`likely`].

mod turn;

use lb_common::{
    pool::{Picker, Pool, PoolNumber, PoolSlot},
    reason::Reason,
};

use crate::{opaque::opaque, storage::Maps};

/// Chooses a slot of pool `number`.
#[inline(always)]
pub fn pick(maps: &impl Maps, number: PoolNumber, pool: Pool) -> Result<PoolSlot, Reason> {
    let slots = pool.slots();
    let slot = match pool.picker() {
        Some(_) if slots.length == 0 => return Err(Reason::NoBackend),
        Some(Picker::Turn) => turn::pick(maps, number, slots)?,
        None => return Err(Reason::Internal),
    };
    Ok(hidden(slot, pool))
}

/// The slot that [`pick`] would choose now, without choosing it. Another CPU may choose it first.
#[inline(always)]
pub fn likely(maps: &impl Maps, number: PoolNumber, pool: Pool) -> Option<PoolSlot> {
    let slots = pool.slots();
    let slot = match pool.picker()? {
        _ if slots.length == 0 => return None,
        Picker::Turn => turn::likely(maps, number, slots)?,
    };
    Some(hidden(slot, pool))
}

/// The slot to try after this one.
#[inline(always)]
pub fn next(pool: Pool, slot: PoolSlot) -> PoolSlot {
    let next = slot.0 + 1;
    hidden(PoolSlot(if next < pool.slots().length { next } else { 0 }), pool)
}

/// The slot, unknown to the verifier.
#[inline(always)]
fn hidden(slot: PoolSlot, pool: Pool) -> PoolSlot {
    PoolSlot(opaque(slot.0.into(), pool.0) as u32)
}
