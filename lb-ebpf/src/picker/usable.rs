//! Passing over backends that a new flow should not get.

use lb_common::{limits::SLOT_TRIES, pool::PoolSlot, reason::Reason};

use super::{ejection, next};
use crate::{family::Family, storage::Storage, table::reply_tuple};

/// The slot, or the first one after it whose backend is not ejected, and has not just refused the client of the flow in
/// [`Storage::scratch`]. If there is none among the slots that are tried, the flow gets an ejected backend.
#[inline(always)]
pub fn from<F: Family>(tables: &impl Storage<F>, slot: PoolSlot) -> Result<PoolSlot, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let pool = flow.schedule.get();
    let (now, refused_by) = (flow.now.get(), flow.refused_by.get());
    let (mut tried, mut last_resort, mut tries) = (slot, slot, 0);
    while tries < SLOT_TRIES {
        let (id, _) = reply_tuple::in_slot(tables, pool.slots(), tried)?;
        if id != refused_by {
            last_resort = tried;
            if tables.load(id).is_none_or(|load| ejection::admits(load, now)) {
                return Ok(tried);
            }
        }
        tried = next(pool, tried);
        tries += 1;
    }
    Ok(last_resort)
}
