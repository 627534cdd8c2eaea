//! Steps that the kernel calls out of line.
//!
//! By default a step is a plain call into the core. The kernel overrides each with a global function, which the verifier
//! checks once, independent of its callers; its arguments and results are packed into numbers.

use lb_common::{
    backend::BackendId,
    clock::Ticks,
    flow::{BucketIndex, Control, RecordIndex},
    net::{V4, V6},
    pool::{PoolSlot, SlotRange},
    reason::Reason,
};

use crate::{
    family::Family,
    packet::tcp::{Segment, Side},
    picker::{
        least::{self, Among},
        offer::{self, Offer},
        usable,
    },
    storage::Storage,
    table::{
        evict::{self, Candidate},
        expire,
        handshake::Retry,
        lifecycle, preload,
        record::{self, States},
        reply_index::{self, Holders, Reserve},
        reply_tuple,
    },
};

/// The steps of one family.
pub trait Steps<F: Family>: Storage<F> + Sized {
    /// [`record::in_bucket`]
    #[inline(always)]
    fn in_bucket(
        &self,
        bucket: BucketIndex,
        states: States,
        except: Option<RecordIndex>,
    ) -> Result<Option<RecordIndex>, Reason> {
        record::in_bucket(self, bucket, states, except)
    }

    /// [`evict::candidate`]
    #[inline(always)]
    fn candidate(
        &self,
        bucket: BucketIndex,
        preferred: u32,
        protocol: u32,
        now: Ticks,
    ) -> Result<Candidate, Reason> {
        evict::candidate(self, self.settings(), bucket, preferred, protocol, now)
    }

    /// [`reply_tuple::write`]
    #[inline(always)]
    fn write_reply_tuple(&self, record: RecordIndex, probe: u32) -> Result<(), Reason> {
        reply_tuple::write(self, record, probe)
    }

    /// [`usable::from`]
    #[inline(always)]
    fn usable(&self, slot: PoolSlot) -> Result<(), Reason> {
        usable::from(self, slot)
    }

    /// [`usable::instead`]
    #[inline(always)]
    fn usable_instead(&self, slot: PoolSlot, probe: u32) -> Result<(), Reason> {
        usable::instead(self, slot, probe)
    }

    /// [`offer::better`]
    #[inline(always)]
    fn better(&self, best: Offer, id: BackendId) -> Offer {
        offer::better(self, best, id)
    }

    /// [`preload::reply_line`] of the flow in [`Storage::scratch`]
    #[inline(always)]
    fn preload(&self) {
        if let Some(flow) = self.scratch() {
            preload::reply_line(self, flow);
        }
    }

    /// [`least::of`]
    #[inline(always)]
    fn least(
        &self,
        slots: SlotRange,
        among: Among,
        refused_by: BackendId,
        now: Ticks,
    ) -> Result<PoolSlot, Reason> {
        least::of(self, slots, among, refused_by, now)
    }

    /// [`reply_index::reserve`]
    #[inline(always)]
    fn reserve(&self, record: RecordIndex, generation: u32, probe: u32, evict: Holders) -> Reserve {
        reply_index::reserve(self, record, generation, probe, evict)
    }

    /// [`reply_index::free`]
    #[inline(always)]
    fn free(&self, record: RecordIndex, control: Control) {
        reply_index::free(self, self.settings(), record, control);
    }

    /// [`reply_index::end`]
    #[inline(always)]
    fn end(&self, record: RecordIndex, control: Control) {
        reply_index::end(self, record, control);
    }

    /// [`expire::in_bucket`]
    #[inline(always)]
    fn expire(&self, bucket: BucketIndex, now: Ticks) {
        expire::in_bucket(self, bucket, now);
    }

    /// [`lifecycle::choose_record`]
    #[inline(always)]
    fn choose_record(
        &self,
        record: RecordIndex,
        control: Control,
        segment: Segment,
    ) -> Result<Option<RecordIndex>, Reason> {
        lifecycle::choose_record(self, record, control, segment)
    }

    /// [`lifecycle::advance`]
    #[inline(always)]
    fn advance(
        &self,
        record: RecordIndex,
        control: Control,
        side: Side,
        segment: Segment,
        idle: Ticks,
    ) -> Result<(), Retry> {
        lifecycle::advance(self, record, control, side, segment, idle)
    }

    /// Writes a debug trace of the flow in [`Storage::scratch`]. Only the kernel has traces.
    #[inline(always)]
    fn trace_new_flow(&self) {}

    /// Writes a debug trace of a packet that is about to be answered.
    #[inline(always)]
    fn trace_rejected(&self, _reason: Reason) {}
}

/// Both families.
pub trait Tables: Steps<V4> + Steps<V6> {}

impl<T: Steps<V4> + Steps<V6>> Tables for T {}
