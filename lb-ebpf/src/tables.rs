//! Everything the packet core asks of the maps and of the host's routing.

use lb_common::{
    backend::Backend,
    cell::Word,
    flow::{Bucket, HintLine},
    hop::{Hop, Interface},
    net::{Be16, V4, V6},
    reason::Reason,
    service::{Filter, Service, ServiceKey, SlotTable},
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf},
    packet::tcp::{Segment, Side},
    table::scratch::NewFlow,
};

/// The maps.
pub trait Tables: FlowTables<V4> + FlowTables<V6> {
    /// Sizes and keys. `None` before the controller has written them.
    fn settings(&self) -> Option<&Settings>;
    /// The time in ticks (`lb_common::clock::TICK_SHIFT`).
    fn now(&self) -> u32;
    /// A byte of the filter, by an index below `Filter::SIZE`.
    fn filter(&self, index: usize) -> u8;
    /// What listens at an address and port.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// The slot table in force.
    fn slots(&self, pool: u32) -> Option<&SlotTable>;
    /// The round-robin word of a pool.
    fn turn(&self, pool: u32) -> Option<&Word>;
    /// The backend that lies where `id` would: the caller compares the id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// An interface by its index.
    fn interface(&self, index: u32) -> Option<&Interface>;
    /// A request went to a backend.
    fn count_forwarded(&self, backend_counters: u32, bytes: u64);
    /// A reply of a backend went to its client.
    fn count_returned(&self, backend_counters: u32, bytes: u64);
    /// A backend was given a flow.
    fn count_new_flow(&self, backend_counters: u32);
    /// A packet for a service was not forwarded.
    fn count_refused(&self, service_counters: u32, bytes: u64);
}

/// The flow table of one family, and the host's routes for it.
///
/// The methods below `half_open` only lead back into this crate. They exist because the kernel makes global functions
/// of them, which the verifier checks once and by themselves, whoever calls; in memory they are plain calls.
pub trait FlowTables<F: Family> {
    /// A bucket of records.
    fn bucket(&self, index: u32) -> Option<&Bucket<RecordOf<F>>>;
    /// A line of hints.
    fn line(&self, index: u32) -> Option<&HintLine>;
    /// Room for the flow that is being made: one per CPU.
    fn new_flow(&self) -> Option<&NewFlow<F>>;
    /// How many records are half-open.
    fn half_open(&self) -> Option<&Word>;
    /// The host's route from `source` to `destination`. An unresolved neighbour is asked for.
    fn route(&self, source: F::Address, destination: F::Address) -> Result<Hop, Reason>;

    /// [`crate::table::record::in_bucket`]
    fn in_bucket(&self, bucket: u32, wanted: u32, not: u32) -> Option<u32>;
    /// [`crate::path::classify::admit`]
    fn admit(&self) -> Result<(), Reason>;
    /// [`crate::table::insert::insert`]
    fn insert(&self) -> Result<(), Reason>;
    /// [`crate::table::evict::victim`]
    fn victim(&self, bucket: u32, preferred: u32, protocol: u32, now: u32) -> u64;
    /// [`crate::table::reply_tuple::propose`]
    fn propose(&self, record: u32, turn: u64, probe: u32) -> Result<(), Reason>;
    /// [`crate::table::reply_index::claim`]
    fn claim(&self, record: u32, generation: u32, probe: u32, force: u32) -> u64;
    /// [`crate::table::reply_index::free`]
    fn free(&self, record: u32, control: u64);
    /// [`crate::table::lifecycle::contest`]
    fn contest(&self, record: u32, control: u64, segment: Segment) -> Option<u32>;
    /// [`crate::table::lifecycle::advance`]
    fn advance(&self, record: u32, control: u64, side: Side, segment: Segment);
    /// [`crate::path::reply::refresh`]
    fn refresh(&self, record: u32, control: u64) -> Result<(), Reason>;
}

/// May a packet with this endpoint (destination or source) be a request, or a reply? See [`Filter`].
#[inline(always)]
pub fn may_be(tables: &impl Tables, folded: u32, port: Be16, what: u8) -> bool {
    tables.filter(Filter::index(folded, port)) & what != 0
}

/// Counts half-open flows up or down.
#[inline(always)]
pub fn count_half_open<F: Family>(tables: &impl FlowTables<F>, change: i64) {
    if let Some(half_open) = tables.half_open() {
        half_open.fetch_add(change as u64);
    }
}
