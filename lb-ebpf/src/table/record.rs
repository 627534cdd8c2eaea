//! Finding a request's record.

use lb_common::{
    cell::fence,
    flow::{BucketIndex, Control, RecordIndex, Shape, State, WAYS},
    reason::Reason,
};

use crate::{
    family::{Family, RecordOf, Tuple},
    opaque::opaque,
    steps::Steps,
    storage::{FlowTable, Storage},
    table::hash::reduce,
};

/// The part of a hash that distinguishes records.
#[inline(always)]
pub const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The bucket to search first.
#[inline(always)]
pub const fn home(hash: u64, shape: Shape) -> BucketIndex {
    BucketIndex(reduce(hash as u32, shape.buckets))
}

/// The bucket for flows that do not fit into their home bucket.
#[inline(always)]
pub const fn second(hash: u64, shape: Shape) -> BucketIndex {
    BucketIndex(reduce((hash >> 16) as u32, shape.buckets))
}

/// The way to check first: at half load, three of four hits touch one cache line.
#[inline(always)]
pub const fn preferred(hash: u64) -> u32 {
    (hash >> 32) as u32 & (WAYS as u32 - 1)
}

/// A record, and its control word when it was found.
pub struct Found<'a, F: Family> {
    /// The record.
    pub record: &'a RecordOf<F>,
    /// Its index.
    pub index: RecordIndex,
    /// The control word when the record was found, to compare after its fields have been copied.
    pub control: Control,
}

impl<F: Family> Found<'_, F> {
    /// Copies fields of the record. `None`: it changed owner meanwhile, and the copy may mix two owners.
    #[inline(always)]
    pub fn read<C>(&self, copy: impl FnOnce(&RecordOf<F>) -> C) -> Option<C> {
        let copied = copy(self.record);
        fence();
        if GUARD_GENERATION && !self.control.is_still(Control(self.record.control.load())) {
            return None;
        }
        Some(copied)
    }
}

/// The second read of the generation. The race test removes it to show that it is needed.
const GUARD_GENERATION: bool = !cfg!(feature = "without_generation_check");

/// The tuple of a flow's requests, as its client sends them.
#[inline(always)]
pub fn request_of<F: Family>(record: &RecordOf<F>) -> Tuple<F> {
    Tuple {
        source: record.client.get(),
        destination: record.listen.get(),
        ports: record.request_ports.get(),
        protocol: u32::from(record.owner.get().protocol()),
    }
}

/// The tuple of a flow's replies, as its backend sends them.
#[inline(always)]
pub fn reply_of<F: Family>(record: &RecordOf<F>) -> Tuple<F> {
    Tuple {
        source: record.backend.get(),
        destination: record.source.get(),
        ports: record.reply_ports.get(),
        protocol: u32::from(record.owner.get().protocol()),
    }
}

/// The flow of a request, in its home bucket.
#[inline(always)]
pub fn at_home<'a, F: Family>(
    tables: &'a impl FlowTable<F>,
    tuple: &Tuple<F>,
    hash: u64,
    shape: Shape,
) -> Result<Option<Found<'a, F>>, Reason> {
    let index = home(hash, shape);
    let bucket = tables.bucket(index).ok_or(Reason::Internal)?;
    let tag = tag(hash);
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (preferred(hash) + step) & (WAYS as u32 - 1);
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        if control.tag() == tag && control.state().is_live() && answers(record, tuple) {
            return Ok(Some(Found { record, index: RecordIndex::new(index, way), control }));
        }
        step += 1;
    }
    Ok(None)
}

/// A set of states that a record can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(pub u32);

impl States {
    /// Half-open, without a closing flow of the same tuple.
    pub const HALF_OPEN: Self = Self(1);
    /// Half-open, with a closing flow of the same tuple.
    pub const REOPENING: Self = Self(2);
    /// Established, closing or closed.
    pub const ESTABLISHED: Self = Self(4);
    /// Being written, possibly with this tuple.
    pub const BUSY: Self = Self(8);
    /// Ended by the controller.
    pub const ENDED: Self = Self(16);
    /// All that belong to a flow.
    pub const LIVE: Self = Self::HALF_OPEN.and(Self::REOPENING).and(Self::ESTABLISHED);

    /// The union.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The intersection.
    #[inline(always)]
    const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set of this one state; empty for states that belong to no set.
    #[inline(always)]
    const fn of(state: State) -> Self {
        if state.is_established() {
            return Self::ESTABLISHED;
        }
        // EMPTY, BUSY, HALF_OPEN, REOPENING are 0 to 3; RETIRED is 5, and in no set; ENDED is 7.
        const BY_STATE: u64 = (States::ENDED.0 as u64) << 56
            | (States::REOPENING.0 as u64) << 24
            | (States::HALF_OPEN.0 as u64) << 16
            | (States::BUSY.0 as u64) << 8;
        Self((BY_STATE >> ((state.0 as u32 & 7) * 8)) as u32 & 0xff)
    }
}

/// A record of a bucket, in one of these states, that has the tuple in [`Storage::scratch`].
#[inline(always)]
pub fn in_bucket<F: Family>(
    tables: &impl Storage<F>,
    index: BucketIndex,
    states: States,
    except: Option<RecordIndex>,
) -> Result<Option<RecordIndex>, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    search(tables, index, states, except, tag(flow.hash.get()), &flow.tuple.get())
}

/// A record of a bucket, in one of these states, that has this tag and tuple.
#[inline(always)]
pub fn search<F: Family>(
    table: &impl FlowTable<F>,
    index: BucketIndex,
    states: States,
    except: Option<RecordIndex>,
    tag: u32,
    tuple: &Tuple<F>,
) -> Result<Option<RecordIndex>, Reason> {
    let bucket = table.bucket(index).ok_or(Reason::Internal)?;
    // An invalid index instead of `None`: one comparison per way for the verifier, not two.
    let except = except.map_or(u32::MAX, |record| record.0);
    let mut way = 0;
    while way < WAYS as u32 {
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        way += 1;
        if control.tag() != tag {
            continue;
        }
        // Hidden from the verifier: it would learn `except` and the state from the comparisons below, and explore the
        // rest of the scan once for each value.
        let hidden = |value: u32| opaque(value.into(), control.0) as u32;
        let found = hidden(RecordIndex::new(index, way - 1).0);
        let state = States(hidden(States::of(control.state()).common(states).0));
        if state.0 != 0 && found != except && (state == States::BUSY || answers(record, tuple)) {
            return Ok(Some(RecordIndex(found)));
        }
    }
    Ok(None)
}

/// [`in_bucket`], in both buckets.
#[inline(always)]
pub fn anywhere<F: Family>(
    tables: &impl Steps<F>,
    states: States,
    except: Option<RecordIndex>,
) -> Result<Option<RecordIndex>, Reason> {
    let shape = F::shape(tables.settings());
    let hash = tables.scratch().ok_or(Reason::Internal)?.hash.get();
    match tables.in_bucket(home(hash, shape), states, except)? {
        Some(record) => Ok(Some(record)),
        None => tables.in_bucket(second(hash, shape), states, except),
    }
}

/// A record by its index.
#[inline(always)]
pub fn by_index<F: Family>(tables: &impl FlowTable<F>, index: RecordIndex) -> Result<Found<'_, F>, Reason> {
    let bucket = tables.bucket(index.bucket()).ok_or(Reason::Internal)?;
    let record = &bucket.way[index.way()];
    Ok(Found { record, index, control: Control(record.control.load()) })
}

/// A record that was found by its index, checked against the request's tuple: it may have changed owner since.
#[inline(always)]
pub fn again<'a, F: Family>(
    tables: &'a impl FlowTable<F>,
    index: RecordIndex,
    tuple: &Tuple<F>,
) -> Result<Option<Found<'a, F>>, Reason> {
    let found = by_index(tables, index)?;
    Ok((found.control.state().is_live() && answers(found.record, tuple)).then_some(found))
}

/// Is this the record of a request with this tuple?
#[inline(always)]
pub fn answers<F: Family>(record: &RecordOf<F>, tuple: &Tuple<F>) -> bool {
    fence();
    record.client.get() == tuple.source
        && record.listen.get() == tuple.destination
        && record.request_ports.get() == tuple.ports
        && u32::from(record.owner.get().protocol()) == tuple.protocol
}
