//! Source hash, and Maglev: the slot follows from what the packet says, not from earlier flows.
//!
//! The key is a secret, so clients cannot choose their backend. It is not that of the flow table: nodes that share it send
//! a flow to the same backend, whichever of them receives it.

use lb_common::{
    net::{Address, Ports},
    pool::{PoolSlot, SlotRange},
};

use crate::{
    family::{Family, Tuple},
    storage::Maps,
    table::{hash::reduce, scratch::Scratch},
};

/// By the client's address alone: its flows have one slot.
#[inline(always)]
pub fn of_source<F: Family>(maps: &impl Maps, flow: &Scratch<F>, slots: SlotRange) -> PoolSlot {
    let source = flow.tuple.get().source;
    let destination = F::from_key(Address::default());
    slot(maps, &Tuple::<F> { source, destination, ports: Ports::from_raw(0), protocol: 0 }, slots)
}

/// By the whole tuple.
#[inline(always)]
pub fn of_flow<F: Family>(maps: &impl Maps, flow: &Scratch<F>, slots: SlotRange) -> PoolSlot {
    slot(maps, &flow.tuple.get(), slots)
}

#[inline(always)]
fn slot<F: Family>(maps: &impl Maps, tuple: &Tuple<F>, slots: SlotRange) -> PoolSlot {
    PoolSlot(reduce(F::hash(&maps.settings().hash_keys, tuple) as u32, slots.length))
}
