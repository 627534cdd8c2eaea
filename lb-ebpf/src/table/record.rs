//! Finding a request's record.

use lb_common::{
    cell::fence,
    flow::{Control, Shape, State, WAYS},
};

use crate::{
    family::{Family, RecordOf, Tuple},
    table::hash::reduce,
    table::scratch::NewFlow,
    tables::{FlowTables, Tables},
};

/// The part of a hash that tells records apart.
#[inline(always)]
pub const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The bucket to look into.
#[inline(always)]
pub const fn home(hash: u64, shape: Shape) -> u32 {
    reduce(hash as u32, shape.buckets)
}

/// The bucket for what the home bucket had no room for.
#[inline(always)]
pub const fn second(hash: u64, shape: Shape) -> u32 {
    reduce((hash >> 16) as u32, shape.buckets)
}

/// The way to look at first: at half load three of four hits touch one line.
#[inline(always)]
pub const fn preferred(hash: u64) -> u32 {
    (hash >> 32) as u32 & (WAYS as u32 - 1)
}

/// A record, and its control word when it was found.
pub struct Found<'a, F: Family> {
    /// The record.
    pub record: &'a RecordOf<F>,
    /// Its number: bucket * WAYS + way.
    pub number: u32,
    /// What it was: to be compared after its fields have been copied.
    pub control: Control,
}

impl<F: Family> Found<'_, F> {
    /// Copies what is needed of the record. `None`: it changed hands meanwhile, and the copy may be of two owners.
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

/// The second look at the generation, which the race test can do without to see that it is needed.
const GUARD_GENERATION: bool = !cfg!(feature = "without_generation_check");

/// A flow's requests, as its client sends them.
#[inline(always)]
pub fn request_of<F: Family>(record: &RecordOf<F>) -> Tuple<F> {
    Tuple {
        source: record.client.get(),
        destination: record.listen.get(),
        ports: record.request_ports.get(),
        protocol: u32::from(record.owner.get().protocol()),
    }
}

/// A flow's replies, as its backend sends them.
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
    tables: &'a impl FlowTables<F>,
    tuple: &Tuple<F>,
    hash: u64,
    shape: Shape,
) -> Option<Found<'a, F>> {
    let index = home(hash, shape);
    let bucket = tables.bucket(index)?;
    let tag = tag(hash);
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (preferred(hash) + step) & (WAYS as u32 - 1);
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        if control.tag() == tag && control.state().is_live() && answers(record, tuple) {
            return Some(Found { record, number: index * WAYS as u32 + way, control });
        }
        step += 1;
    }
    None
}

/// [`in_bucket`]: no record is left out.
pub const NOWHERE: u32 = u32::MAX;

/// Kinds of records, to be added up.
pub mod kind {
    /// Half-open, alone.
    pub const HALF_OPEN: u32 = 1;
    /// Half-open beside a closing flow.
    pub const CHALLENGER: u32 = 2;
    /// Established, closing or closed.
    pub const ESTABLISHED: u32 = 4;
    /// Being written, perhaps with this tuple.
    pub const BUSY: u32 = 8;
    /// Whatever answers.
    pub const LIVE: u32 = HALF_OPEN | CHALLENGER | ESTABLISHED;
}

#[inline(always)]
const fn kind_of(state: State) -> u32 {
    if state.is_established() {
        return kind::ESTABLISHED;
    }
    // EMPTY, BUSY, HALF_OPEN, CHALLENGER are 0 to 3; RETIRED is 5, and no kind.
    const KINDS: u32 = kind::CHALLENGER << 12 | kind::HALF_OPEN << 8 | kind::BUSY << 4;
    KINDS >> ((state.0 as u32 & 7) * 4) & 0xf
}

/// A record of a bucket, of the wanted kinds and but for one, that has the tuple in [`FlowTables::new_flow`].
#[inline(always)]
pub fn in_bucket<F: Family>(tables: &impl FlowTables<F>, index: u32, wanted: u32, not: u32) -> Option<u32> {
    let bucket = tables.bucket(index)?;
    let flow = tables.new_flow()?;
    let tag = tag(flow.hash.get());
    let tuple = flow.tuple.get();
    let mut way = 0;
    while way < WAYS as u32 {
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        let number = index * WAYS as u32 + way;
        let kind = kind_of(control.state()) & wanted;
        if kind != 0
            && control.tag() == tag
            && number != not
            && (kind == kind::BUSY || answers(record, &tuple))
        {
            return Some(number);
        }
        way += 1;
    }
    None
}

/// [`in_bucket`], in both buckets.
#[inline(always)]
pub fn anywhere<F: Family, T: Tables + FlowTables<F>>(tables: &T, wanted: u32, not: u32) -> Option<u32> {
    let shape = F::shape(tables.settings()?);
    let flow: &NewFlow<F> = tables.new_flow()?;
    let hash = flow.hash.get();
    FlowTables::<F>::in_bucket(tables, home(hash, shape), wanted, not)
        .or_else(|| FlowTables::<F>::in_bucket(tables, second(hash, shape), wanted, not))
}

/// A record by its number.
#[inline(always)]
pub fn by_number<F: Family>(tables: &impl FlowTables<F>, number: u32) -> Option<Found<'_, F>> {
    let bucket = tables.bucket(number / WAYS as u32)?;
    let record = &bucket.way[number as usize & (WAYS - 1)];
    Some(Found { record, number, control: Control(record.control.load()) })
}

/// A record that answered for a request when it was found by its number alone: it may have changed hands since.
#[inline(always)]
pub fn again<'a, F: Family>(
    tables: &'a impl FlowTables<F>,
    number: u32,
    tuple: &Tuple<F>,
) -> Option<Found<'a, F>> {
    let found = by_number(tables, number)?;
    (found.control.state().is_live() && answers(found.record, tuple)).then_some(found)
}

/// Is this the record of a request with this tuple? Addresses and ports first, the protocol last.
#[inline(always)]
pub fn answers<F: Family>(record: &RecordOf<F>, tuple: &Tuple<F>) -> bool {
    fence();
    record.client.get() == tuple.source
        && record.listen.get() == tuple.destination
        && record.request_ports.get() == tuple.ports
        && u32::from(record.owner.get().protocol()) == tuple.protocol
}
