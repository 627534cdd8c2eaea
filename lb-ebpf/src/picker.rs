//! Pickers: how a slot of the pool is chosen for a new flow. Each has a line in [`pick`] and in [`likely`].
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
mod hash;
pub mod least;
pub mod offer;
mod turn;
pub mod usable;

use lb_common::{
    backend::BackendId,
    pool::{Picker, Pool, PoolSlot},
    reason::Reason,
};

use self::least::Among;
use crate::{family::Family, opaque::opaque, steps::Steps, table::scratch::Scratch};

/// Chooses a slot for a new flow.
#[inline(always)]
pub fn pick<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, pool: Pool) -> Result<PoolSlot, Reason> {
    let slots = pool.slots();
    let slot = match pool.picker() {
        Some(_) if slots.length == 0 => return Err(Reason::NoBackend),
        Some(Picker::Turn) => turn::pick(tables, flow.pool.get(), slots)?,
        Some(Picker::SourceHash) => hash::of_source(tables, flow, slots),
        Some(Picker::FlowHash) => hash::of_flow(tables, flow, slots),
        Some(Picker::LeastOfAll) => {
            let turn = turn::pick(tables, flow.pool.get(), slots)?;
            least(tables, flow, pool, Among::all(turn, slots))?
        }
        Some(Picker::LeastOfTwo) => least(tables, flow, pool, Among::two(flow.hash.get(), slots))?,
        None => return Err(Reason::Internal),
    };
    Ok(hidden(slot, pool))
}

/// The slot of least load: the one that [`likely`] has found a moment ago, unless its backend has refused the client.
#[inline(always)]
fn least<F: Family>(
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    pool: Pool,
    among: Among,
) -> Result<PoolSlot, Reason> {
    let refused_by = flow.refused_by.get();
    match flow.likely() {
        Some(slot) if flow.schedule.get() == pool && refused_by == BackendId::NONE => Ok(slot),
        Some(_) | None => tables.least(pool.slots(), among, refused_by, flow.now.get()),
    }
}

/// The slot that [`pick`] would choose now, without choosing it. Another CPU may choose it first.
#[inline(always)]
pub fn likely<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, pool: Pool) -> Option<PoolSlot> {
    let slots = pool.slots();
    let slot = match pool.picker()? {
        _ if slots.length == 0 => return None,
        Picker::Turn => turn::likely(tables, flow.pool.get(), slots)?,
        Picker::SourceHash => hash::of_source(tables, flow, slots),
        Picker::FlowHash => hash::of_flow(tables, flow, slots),
        Picker::LeastOfAll => {
            let turn = turn::likely(tables, flow.pool.get(), slots)?;
            tables.least(slots, Among::all(turn, slots), BackendId::NONE, tables.now()).ok()?
        }
        Picker::LeastOfTwo => {
            let among = Among::two(flow.hash.get(), slots);
            tables.least(slots, among, BackendId::NONE, tables.now()).ok()?
        }
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
