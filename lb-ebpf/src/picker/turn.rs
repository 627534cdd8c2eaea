//! Round robin: one slot after another.

use lb_common::{
    pool::{PoolNumber, PoolSlot, SlotRange},
    reason::Reason,
};

use crate::storage::Maps;

/// What becomes of the turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// The flow takes it: the next flow has the next one.
    Take,
    /// It stays.
    Look,
}

/// The slot whose turn it is.
///
/// Exact for any number of slots and CPUs: each CPU takes a turn with one atomic addition. A division is acceptable
/// here, because it runs only for new flows.
#[inline(always)]
pub fn slot(maps: &impl Maps, pool: PoolNumber, slots: SlotRange, turns: Turns) -> Result<PoolSlot, Reason> {
    let taken = &maps.turn(pool).ok_or(Reason::Internal)?.taken;
    let turn = if turns == Turns::Take { taken.fetch_add(1) } else { taken.load() };
    Ok(PoolSlot((turn % u64::from(slots.length).max(1)) as u32))
}
