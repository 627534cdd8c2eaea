//! The working memory of slow paths.

use lb_common::{
    backend::BackendId,
    cell::Shared,
    clock::Ticks,
    counters::ServiceNumber,
    flow::{BucketIndex, Computed, Deltas, RecordIndex},
    hop::Hop,
    pool::{Pool, PoolNumber, PoolSlot},
};

use crate::{
    family::{Family, Tuple},
    packet::parse::Layout,
};

/// Input and output of slow paths. Each CPU has one, because programs that follow each other by tail call share no stack.
#[repr(C)]
#[derive(Debug)]
pub struct Scratch<F: Family> {
    /// The tuple of the packet.
    pub tuple: Shared<Tuple<F>>,
    /// The hash of the tuple.
    pub hash: Shared<u64>,
    /// Is the segment a SYN? 0 or 1.
    pub is_syn: Shared<u32>,
    /// The sequence number of a TCP segment.
    pub sequence: Shared<u32>,
    /// See [`Scratch::going_on`].
    pub going_on: Shared<u32>,
    /// [`Service::computed`](lb_common::service::Service::computed) of the service.
    pub computed: Shared<u32>,
    /// The backend that has just refused the client. [`BackendId::NONE`]: none has.
    pub refused_by: Shared<BackendId>,
    /// How many backends have refused the client.
    pub retries: Shared<u32>,
    /// Did the fast path find a live record of the tuple? 0 or 1.
    pub has_record: Shared<u32>,
    /// The packet's hop limit and lengths.
    pub layout: Shared<Layout>,
    /// The time.
    pub now: Shared<Ticks>,
    /// The number of the service's pool.
    pub pool: Shared<PoolNumber>,
    /// The pool's word when the flow's creation began.
    pub schedule: Shared<Pool>,
    /// See [`Scratch::likely`].
    pub likely: Shared<PoolSlot>,
    /// The number of the service's counters.
    pub service_counters: Shared<ServiceNumber>,
    /// The number of the service's [`Reject`](lb_common::service::Reject).
    pub reject: Shared<u32>,
    /// The number of the [`Reason`](lb_common::reason::Reason) for which the packet is rejected.
    pub reason: Shared<u32>,
    /// See [`Scratch::closing`].
    pub closing: Shared<RecordIndex>,
    /// The client's next hop.
    pub client_hop: Shared<Hop>,
    /// The routing generation in which it was looked up.
    pub hop_generation: Shared<u32>,
    /// The record of a reply that is stale, or whose flow was ended.
    pub record: Shared<RecordIndex>,
    /// The [`Control`](lb_common::flow::Control) word of that record when it was found.
    pub control: Shared<u64>,
    /// When this CPU last searched for flows that have expired. Kept from packet to packet.
    pub last_search: Shared<Ticks>,
    /// The first bucket of its next search. Kept from packet to packet.
    pub next_bucket: Shared<BucketIndex>,
    /// The id of the backend that was chosen.
    pub backend: Shared<BackendId>,
    /// Output: the tuple after the rewrite.
    pub rewritten: Shared<Tuple<F>>,
    /// Output: the checksum differences of the rewrite.
    pub deltas: Shared<Deltas>,
}

/// Not a record: above [`lb_common::flow::MAX_RECORDS`]. Scratch is memory of a map, where any bytes must be a valid value, so
/// it cannot hold an `Option`.
const NO_RECORD: RecordIndex = RecordIndex(u32::MAX);
const FROM_CLIENT: u32 = Computed::FromClient as u32;
const FROM_BACKEND: u32 = Computed::FromBackend as u32;
/// Not a slot, for the same reason.
const NO_SLOT: PoolSlot = PoolSlot(u32::MAX);

impl<F: Family> Scratch<F> {
    /// The record of an older, closing flow of the same tuple.
    #[inline(always)]
    pub fn closing(&self) -> Option<RecordIndex> {
        let closing = self.closing.get();
        (closing != NO_RECORD).then_some(closing)
    }

    /// Stores the record of an older, closing flow of the same tuple.
    #[inline(always)]
    pub fn set_closing(&self, record: Option<RecordIndex>) {
        self.closing.set(record.unwrap_or(NO_RECORD));
    }

    /// The side that sent a TCP segment which [goes on](crate::packet::tcp::Segment::goes_on) with a connection. Its backend is
    /// computed, if another node may know the flow.
    #[inline(always)]
    pub fn going_on(&self) -> Option<Computed> {
        match self.going_on.get() {
            FROM_CLIENT => Some(Computed::FromClient),
            FROM_BACKEND => Some(Computed::FromBackend),
            _ => None,
        }
    }

    /// Stores which side sent it. `None`: it opens a connection, ends one, or is a datagram.
    #[inline(always)]
    pub fn set_going_on(&self, side: Option<Computed>) {
        self.going_on.set(side.map_or(0, |side| side as u32));
    }

    /// The slot that was the [likely](crate::picker::likely) one when the fast path looked up the service of a SYN, with the
    /// pool's word at that time in [`Self::schedule`].
    #[inline(always)]
    pub fn likely(&self) -> Option<PoolSlot> {
        let slot = self.likely.get();
        (slot != NO_SLOT).then_some(slot)
    }

    /// Stores the likely slot.
    #[inline(always)]
    pub fn set_likely(&self, slot: Option<PoolSlot>) {
        self.likely.set(slot.unwrap_or(NO_SLOT));
    }
}
