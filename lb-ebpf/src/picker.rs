//! Pickers: which slot of its pool a new flow gets. One file each, and a line in [`pick`].

mod turn;

use lb_common::{
    pool::{Picker, Pool},
    reason::Reason,
};

use crate::{opaque::opaque, storage::Maps};

/// Chooses a slot of the pool of this number and word, counted from the beginning of its range.
#[inline(always)]
pub fn pick(maps: &impl Maps, number: u32, pool: Pool) -> Result<u32, Reason> {
    let slots = pool.slots();
    let slot = match pool.picker() {
        Some(_) if slots.length == 0 => return Err(Reason::NoBackend),
        Some(Picker::Turn) => turn::pick(maps, number, slots)?,
        None => return Err(Reason::Internal),
    };
    Ok(hidden(slot, pool))
}

/// The slot that is tried after this one.
#[inline(always)]
pub fn next(pool: Pool, slot: u32) -> u32 {
    hidden(if slot + 1 < pool.slots().length { slot + 1 } else { 0 }, pool)
}

/// However a slot was found, the verifier shall know nothing of it.
#[inline(always)]
fn hidden(slot: u32, pool: Pool) -> u32 {
    opaque(slot.into(), pool.0) as u32
}
