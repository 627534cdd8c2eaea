//! What the packet core asks of its surroundings: the maps, and the host's routes.

use lb_common::{
    backend::Backend,
    cell::Word,
    event::NeighbourWanted,
    flow::{Bucket, HintLine},
    hop::{Hop, Interface},
    net::{Address, Be16},
    pool::{Pool, SourceSet},
    reason::Reason,
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf},
    table::scratch::Scratch,
};

/// What both families share. An element that is missing where it must be is [`Reason::Internal`], whatever was sought.
pub trait Maps {
    /// Sizes and keys. `None` before the controller has written them.
    fn settings(&self) -> Option<&Settings>;
    /// The time in ticks (`lb_common::clock::TICK_SHIFT`).
    fn now(&self) -> u32;
    /// How many bits of a hash are left out for a place in the filter.
    fn filter_shift(&self) -> u32;
    /// A byte of the filter, by its [place](Filter::place).
    fn filter(&self, place: usize) -> u8;
    /// What listens at an address and port.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// What a pool has in force.
    fn pool(&self, number: u32) -> Option<Pool>;
    /// The id of the backend in a slot of the array.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A set of sources.
    fn sources(&self, number: u32) -> Option<&SourceSet>;
    /// The round-robin word of a pool.
    fn turn(&self, pool: u32) -> Option<&Word>;
    /// The backend that lies where `id` would: the caller compares the id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// An interface by its index.
    fn interface(&self, index: u32) -> Option<&Interface>;
    /// Asks the daemon to resolve a neighbour. False: it does not read what it is asked.
    fn ask(&self, wanted: NeighbourWanted) -> bool;
    /// A request went to a backend.
    fn count_forwarded(&self, backend_counters: u32, bytes: u64);
    /// A reply of a backend went to its client.
    fn count_returned(&self, backend_counters: u32, bytes: u64);
    /// A backend was given a flow.
    fn count_new_flow(&self, backend_counters: u32);
    /// A packet for a service was not forwarded.
    fn count_refused(&self, service_counters: u32, bytes: u64);
}

/// What the host's routes say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Its next hop.
    Resolved(Hop),
    /// The MAC of its next hop is not known.
    Unresolved {
        /// All but the destination.
        hop: Hop,
        /// Whose MAC is missing: a gateway, or the address itself where it is on the link.
        next_hop: Address,
    },
}

/// The memory of one family's flow table. The daemon's sweeps work on it with the same code as the program.
pub trait FlowTable<F: Family> {
    /// A bucket of records.
    fn bucket(&self, index: u32) -> Option<&Bucket<RecordOf<F>>>;
    /// A line of hints.
    fn line(&self, index: u32) -> Option<&HintLine>;
    /// How many records are half-open.
    fn half_open(&self) -> Option<&Word>;
}

/// What the program has for one family: the flow table, and the host's routes.
pub trait Storage<F: Family>: FlowTable<F> + Maps {
    /// What a slow path works on: one per CPU.
    fn scratch(&self) -> Option<&Scratch<F>>;
    /// The host's route from `source` to `destination`. [`Reason::NoClientRoute`]: there is none through an attached
    /// interface.
    fn route(&self, source: F::Address, destination: F::Address) -> Result<Route, Reason>;
}

/// May a packet with this endpoint (destination or source) be a request, or a reply? See [`Filter`].
#[inline(always)]
pub fn may_be(maps: &impl Maps, folded: u32, port: Be16, what: u8) -> bool {
    maps.filter(Filter::place(folded, port, maps.filter_shift())) & what != 0
}

/// Counts half-open flows up or down.
#[inline(always)]
pub fn count_half_open<F: Family>(table: &impl FlowTable<F>, change: i64) {
    if let Some(half_open) = table.half_open() {
        half_open.fetch_add(change as u64);
    }
}
