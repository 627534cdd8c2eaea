//! Round robin: one slot after another.

use lb_common::{
    pool::{PoolNumber, PoolSlot, SlotRange},
    reason::Reason,
};

use crate::storage::Maps;

/// The next slot of the round.
///
/// Exact for any number of slots and CPUs: each CPU takes a turn with one atomic addition. A division is acceptable
/// here, because it runs only for new flows.
#[inline(always)]
pub fn pick(maps: &impl Maps, pool: PoolNumber, slots: SlotRange) -> Result<PoolSlot, Reason> {
    Ok(slot(maps.turn(pool).ok_or(Reason::Internal)?.taken.fetch_add(1), slots))
}

/// The slot whose turn it is.
#[inline(always)]
pub fn likely(maps: &impl Maps, pool: PoolNumber, slots: SlotRange) -> Option<PoolSlot> {
    Some(slot(maps.turn(pool)?.taken.load(), slots))
}

#[inline(always)]
fn slot(turn: u64, slots: SlotRange) -> PoolSlot {
    PoolSlot((turn % u64::from(slots.length).max(1)) as u32)
}
