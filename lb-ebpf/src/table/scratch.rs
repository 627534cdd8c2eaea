//! The form that a flow's making fills in.

use lb_common::{cell::Shared, flow::Deltas, hop::Hop};

use crate::family::{Family, Tuple};

/// What goes into a flow's making, and what comes out. Each CPU has one, because the stack has 512 bytes.
#[repr(C)]
#[derive(Debug)]
pub struct NewFlow<F: Family> {
    /// The request's.
    pub tuple: Shared<Tuple<F>>,
    /// Its hash.
    pub hash: Shared<u64>,
    /// Does the segment open a connection? 0 or 1.
    pub is_syn: Shared<u32>,
    /// Hops that the packet has left.
    pub hops: Shared<u32>,
    /// Bytes of the IP packet.
    pub length: Shared<u32>,
    /// The time.
    pub now: Shared<u32>,
    /// The service's pool.
    pub pool: Shared<u32>,
    /// Number of the service's counters.
    pub service_counters: Shared<u32>,
    /// See [`NewFlow::closing`].
    pub closing: Shared<u32>,
    /// The client's next hop.
    pub client_hop: Shared<Hop>,
    /// The routing generation in which it was looked up.
    pub hop_generation: Shared<u32>,
    /// Out: the backend's id.
    pub backend: Shared<u32>,
    /// Out: what the request becomes.
    pub rewritten: Shared<Tuple<F>>,
    /// Out: by these differences.
    pub deltas: Shared<Deltas>,
}

/// No record has this number: [`lb_common::flow::MAX_RECORDS`] is less.
const NO_RECORD: u32 = u32::MAX;

impl<F: Family> NewFlow<F> {
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
