//! What a backend has to offer to a new flow.

use lb_common::{backend::BackendId, reason::Reason};

use super::ejection;
use crate::{family::Family, mode, storage::Storage};

/// What a backend offers: `rank (32) | id of the backend, or number of a reason (32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer(pub u64);

/// A backend that cannot serve the flow.
const UNFIT: u64 = 1;
/// A backend that has its maximum of flows.
const FULL: u64 = 2;
/// A backend that has just refused the client.
const REFUSED: u64 = 3;
/// A backend that is ejected.
const EJECTED: u64 = 4;
/// None of these.
const USABLE: u64 = 5;

impl Offer {
    /// No offer. Any other is better.
    pub const NONE: Self = Self::without(0, Reason::Internal);
    /// The backend's reply tuple is in use.
    pub const TAKEN: Self = Self::without(UNFIT, Reason::TupleInUse);

    const fn without(rank: u64, reason: Reason) -> Self {
        Self(rank << 32 | reason as u64)
    }

    const fn with(rank: u64, id: BackendId) -> Self {
        Self(rank << 32 | id.0 as u64)
    }

    const fn rank(self) -> u64 {
        self.0 >> 32
    }

    /// Should the flow get this backend?
    #[inline(always)]
    pub const fn is_usable(self) -> bool {
        self.rank() == USABLE
    }

    /// The backend, or why the flow cannot have it.
    #[inline(always)]
    pub fn backend(self) -> Result<BackendId, Reason> {
        if self.rank() > FULL {
            Ok(BackendId(self.0 as u32))
        } else {
            Err(Reason::from_number(self.0 as u32 as u64))
        }
    }
}

/// The best offer so far, or that of another backend if it is better.
#[inline(always)]
pub fn better<F: Family>(tables: &impl Storage<F>, best: Offer, id: BackendId) -> Offer {
    let other = of(tables, id);
    if other.rank() > best.rank() { other } else { best }
}

/// The offer of a backend to the flow in [`Storage::scratch`].
#[inline(always)]
pub fn of<F: Family>(tables: &impl Storage<F>, id: BackendId) -> Offer {
    let (Some(flow), Some(backend)) = (tables.scratch(), tables.backend(id)) else { return Offer::NONE };
    let (pool, client) = (flow.schedule.get(), flow.tuple.get().source);
    let Some(mode) = pool.mode() else { return Offer::NONE };
    if id == BackendId::NONE {
        return Offer::NONE; // The controller is replacing the members.
    }
    if backend.id != id {
        return Offer::without(UNFIT, Reason::Contended); // The controller is replacing the backend.
    }
    if !mode::can_serve::<F>(mode, client, F::from_key(backend.address)) {
        return Offer::without(UNFIT, Reason::TupleInUse);
    }
    let load = tables.load_of(backend);
    if !backend.has_room(load) {
        return Offer::without(FULL, Reason::BackendsFull);
    }
    if id == flow.refused_by.get() {
        return Offer::with(REFUSED, id);
    }
    Offer::with(if ejection::admits(load, flow.now.get()) { USABLE } else { EJECTED }, id)
}
