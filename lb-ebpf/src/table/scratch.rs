//! What the slow paths work on.

use lb_common::{cell::Shared, flow::Deltas, hop::Hop, pool::Pool};

use crate::{
    family::{Family, Tuple},
    packet::parse::Layout,
};

/// What the fast path hands to a slow path, and what that makes of it. Each CPU has one: the programs of a packet share
/// no stack.
#[repr(C)]
#[derive(Debug)]
pub struct Scratch<F: Family> {
    /// The request's.
    pub tuple: Shared<Tuple<F>>,
    /// Its hash.
    pub hash: Shared<u64>,
    /// Does the segment open a connection? 0 or 1.
    pub is_syn: Shared<u32>,
    /// Where the packet's headers lie.
    pub layout: Shared<Layout>,
    /// The time.
    pub now: Shared<u32>,
    /// The number of the service's pool.
    pub pool: Shared<u32>,
    /// What that pool had in force when the flow began to be made.
    pub schedule: Shared<Pool>,
    /// Number of the service's counters.
    pub service_counters: Shared<u32>,
    /// See [`Scratch::closing`].
    pub closing: Shared<u32>,
    /// The client's next hop.
    pub client_hop: Shared<Hop>,
    /// The routing generation in which it was looked up.
    pub hop_generation: Shared<u32>,
    /// A stale reply's record.
    pub record: Shared<u32>,
    /// A stale reply's record, as it was found: a [`Control`](lb_common::flow::Control).
    pub control: Shared<u64>,
    /// Out: the backend's id.
    pub backend: Shared<u32>,
    /// Out: what the request becomes.
    pub rewritten: Shared<Tuple<F>>,
    /// Out: by these differences.
    pub deltas: Shared<Deltas>,
}

/// No record has this number: [`lb_common::flow::MAX_RECORDS`] is less.
const NO_RECORD: u32 = u32::MAX;

impl<F: Family> Scratch<F> {
    /// The record of an older, closing flow of the same tuple.
    #[inline(always)]
    pub fn closing(&self) -> Option<u32> {
        let number = self.closing.get();
        (number != NO_RECORD).then_some(number)
    }

    /// Notes the record of an older, closing flow of the same tuple.
    #[inline(always)]
    pub fn set_closing(&self, record: Option<u32>) {
        self.closing.set(record.unwrap_or(NO_RECORD));
    }
}
