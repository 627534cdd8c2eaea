//! Passing over backends that a new flow should not get.

use lb_common::{limits::SLOT_TRIES, pool::PoolSlot, reason::Reason};

use super::{ejection, next};
use crate::{family::Family, storage::Storage, table::reply_tuple};

/// The slot, or the first one after it whose backend has room, is not ejected, and has not just refused the client of the flow
/// in [`Storage::scratch`]. If there is none among the slots that are tried, the flow gets a backend that has room.
#[inline(always)]
pub fn from<F: Family>(tables: &impl Storage<F>, slot: PoolSlot) -> Result<PoolSlot, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let pool = flow.schedule.get();
    let (now, refused_by) = (flow.now.get(), flow.refused_by.get());
    let (mut tried, mut last_resort, mut tries) = (slot, None, 0);
    while tries < SLOT_TRIES {
        let (id, backend) = reply_tuple::in_slot(tables, pool.slots(), tried)?;
        let load = tables.load_of(backend);
        if backend.has_room(load) {
            if id != refused_by && ejection::admits(load, now) {
                return Ok(tried);
            }
            if id != refused_by || last_resort.is_none() {
                last_resort = Some(tried);
            }
        }
        tried = next(pool, tried);
        tries += 1;
    }
    last_resort.ok_or(Reason::BackendsFull)
}
