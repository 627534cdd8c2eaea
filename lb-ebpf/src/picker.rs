//! Pickers: how a slot of the pool is chosen for a new flow. Each has a line in [`choose`].
//!
//! The daemon decides which backends the slots hold, so several schedulers share a picker (docs/ARCHITECTURE.md has the
//! table):
//!
//! | picker | slot | schedulers |
//! |---|---|---|
//! | [`turn`] | one after another | `round-robin`, `weighted-round-robin` |
//! | [`hash::of_source`] | by the client's address | `source-hash` |
//! | [`hash::of_flow`] | by the tuple | `maglev` |
//! | [`least::of`] | fewest flows for the weight, of all | `least-connections` |
//! | [`least::of`] | the same, of two that the hash of the tuple chooses | `random-two` |

pub mod ejection;
pub mod hash;
pub mod least;
pub mod offer;
mod turn;
pub mod usable;

use lb_common::{
    backend::BackendId,
    pool::{Picker, Pool, PoolSlot},
    reason::Reason,
};

use self::{least::Among, turn::Turns};
use crate::{family::Family, opaque::opaque, steps::Steps, table::scratch::Scratch};

/// Chooses a slot for a new flow.
#[inline(always)]
pub fn pick<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, pool: Pool) -> Result<PoolSlot, Reason> {
    choose(tables, flow, pool, Turns::Take)
}

/// The slot that [`pick`] would choose now, without choosing it. Another CPU may choose it first.
#[inline(always)]
pub fn likely<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, pool: Pool) -> Option<PoolSlot> {
    choose(tables, flow, pool, Turns::Look).ok()
}

#[inline(always)]
fn choose<F: Family>(
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    pool: Pool,
    turns: Turns,
) -> Result<PoolSlot, Reason> {
    let (picker, slots) = (pool.picker().ok_or(Reason::Internal)?, pool.slots());
    if slots.length == 0 {
        return Err(Reason::NoBackend);
    }
    let turn = || turn::slot(tables, flow.pool.get(), slots, turns);
    let least = |among| least(tables, flow, pool, among, turns);
    let slot = match picker {
        Picker::Turn => turn()?,
        Picker::SourceHash => hash::of_source(tables, flow, slots),
        Picker::FlowHash => hash::of_flow(tables, flow, slots),
        Picker::LeastOfAll => least(Among::all(turn()?, slots))?,
        Picker::LeastOfTwo => least(Among::two(flow.hash.get(), slots))?,
    };
    Ok(hidden(slot, pool))
}

/// The slot of least load. For a flow that is created: the one that [`likely`] has found a moment ago, unless its backend has
/// refused the client.
#[inline(always)]
fn least<F: Family>(
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    pool: Pool,
    among: Among,
    turns: Turns,
) -> Result<PoolSlot, Reason> {
    if turns == Turns::Look {
        return tables.least(pool.slots(), among, BackendId::NONE, tables.now());
    }
    let refused_by = flow.refused_by.get();
    match flow.likely() {
        Some(slot) if flow.schedule.get() == pool && refused_by == BackendId::NONE => Ok(slot),
        Some(_) | None => tables.least(pool.slots(), among, refused_by, flow.now.get()),
    }
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
