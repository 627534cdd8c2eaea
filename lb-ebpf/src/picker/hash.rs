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
    table::{
        hash::{Keys, reduce},
        scratch::Scratch,
    },
};

/// By the client's address alone: its flows have one slot.
#[inline(always)]
pub fn of_source<F: Family>(maps: &impl Maps, flow: &Scratch<F>, slots: SlotRange) -> PoolSlot {
    source_slot(&maps.settings().hash_keys, &flow.tuple.get(), slots.length)
}

/// By the whole tuple.
#[inline(always)]
pub fn of_flow<F: Family>(maps: &impl Maps, flow: &Scratch<F>, slots: SlotRange) -> PoolSlot {
    flow_slot(&maps.settings().hash_keys, &flow.tuple.get(), slots.length)
}

/// The slot of this client, of `length` slots.
#[inline(always)]
pub fn source_slot<F: Family>(keys: &Keys, tuple: &Tuple<F>, length: u32) -> PoolSlot {
    let destination = F::from_key(Address::default());
    let source = Tuple { destination, ports: Ports::from_raw(0), protocol: 0, ..*tuple };
    flow_slot(keys, &source, length)
}

/// The slot of this tuple, of `length` slots.
#[inline(always)]
pub fn flow_slot<F: Family>(keys: &Keys, tuple: &Tuple<F>, length: u32) -> PoolSlot {
    PoolSlot(reduce(F::hash(keys, tuple) as u32, length))
}
