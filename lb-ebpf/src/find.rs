//! Finding a request's record.

use lb_common::{
    cell::fence,
    flow::{Control, Shape, State, WAYS},
};

use crate::{
    family::{Family, RecordOf, Tuple},
    hash::reduce,
    insert::NewFlow,
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

/// The flow of the request in [`FlowTables::new_flow`], in its second bucket: one of a hundred at half load.
#[inline(always)]
pub fn elsewhere<F: Family, T: Tables + FlowTables<F>>(tables: &T) -> Option<u32> {
    let shape = F::shape(tables.settings()?);
    let flow: &NewFlow<F> = tables.new_flow()?;
    let hash = flow.hash.get();
    in_bucket(tables, second(hash, shape), &flow.tuple.get(), tag(hash), |_, state| state.is_live())
}

/// A record of a bucket with this tuple, that `is_wanted` by its number and state.
#[inline(always)]
pub fn in_bucket<F: Family>(
    tables: &impl FlowTables<F>,
    index: u32,
    tuple: &Tuple<F>,
    tag: u32,
    is_wanted: impl Fn(u32, State) -> bool,
) -> Option<u32> {
    let bucket = tables.bucket(index)?;
    let mut way = 0;
    while way < WAYS as u32 {
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        let number = index * WAYS as u32 + way;
        if control.tag() == tag && is_wanted(number, control.state()) && answers(record, tuple) {
            return Some(number);
        }
        way += 1;
    }
    None
}

/// A record by its number.
#[inline(always)]
pub fn by_number<F: Family>(tables: &impl FlowTables<F>, number: u32) -> Option<Found<'_, F>> {
    let bucket = tables.bucket(number / WAYS as u32)?;
    let record = &bucket.way[number as usize & (WAYS - 1)];
    Some(Found { record, number, control: Control(record.control.load()) })
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
