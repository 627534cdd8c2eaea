//! Creating a flow: a record, a backend, a reply tuple.
//!
//! ```text
//! candidate ─▶ take its record (BUSY) ─▶ remove its reply index entry ─▶ check for a duplicate
//!           ─▶ write ─▶ reserve a reply tuple, with retries ─▶ publish (HALF_OPEN)
//! ```

use lb_common::{
    cell::fence,
    clock::Ticks,
    flow::{Control, Proof, RecordIndex, State},
    hop::{ClientHop, HopStamp},
    limits::PORT_PROBES,
    pool::{Pool, PoolSlot},
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, deltas},
    mode,
    opaque::opaque,
    path::computed,
    picker,
    steps::Steps,
    table::evict,
    table::lifecycle,
    table::record::{self, Found, States, by_index},
    table::reply_index::{self, Holders, Reserve},
    table::scratch::Scratch,
    table::transition,
};

/// Creates a flow, and counts it for its backend.
#[inline(always)]
pub fn insert<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>) -> Result<(), Reason> {
    let settings = tables.settings();
    let pool = tables.pool(flow.pool.get()).ok_or(Reason::Internal)?;
    let slot = picker::pick(tables, flow, pool)?;
    flow.schedule.set(pool);
    match flow.going_on() {
        None => tables.usable(slot)?,
        Some(_) => computed::choose(tables, flow, pool, slot)?,
    }
    let mine = take_record(tables, settings, flow)?;
    let made = is_alone(tables, flow, mine.index).and_then(|()| fill(tables, pool, slot, flow, &mine));
    fence();
    let state = match made {
        Ok(()) if flow.closing().is_some() => {
            // Marked before it is published: a CPU that finds the reopening flow also finds the mark.
            lifecycle::mark_closing(tables, mine.index);
            State::REOPENING
        }
        Ok(()) => State::HALF_OPEN,
        Err(reason) => {
            mine.record.control.store(Control::new(mine.control.generation(), State::EMPTY, 0).0);
            return if reason == Reason::TupleInUse { use_closing_flow(tables, flow) } else { made };
        }
    };
    transition::publish(tables, mine.record, mine.control, state.after_retries(flow.retries.get()));
    made
}

/// With nat, if the only eligible backend is that of this tuple's closing flow, forwards the SYN on that flow. The
/// backend decides whether it opens another connection (RFC 9293, 3.10.7.4; RFC 6191).
#[inline(always)]
fn use_closing_flow<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>) -> Result<(), Reason> {
    let closing = flow.closing().ok_or(Reason::TupleInUse)?;
    let closing = record::again(tables, closing, &flow.tuple.get())?.ok_or(Reason::TupleInUse)?;
    let copied = closing.read(|it| {
        flow.rewritten.set(record::reply_of::<F>(it).reversed());
        flow.deltas.set(it.deltas.get());
        (it.owner.get(), Ticks(it.last_seen.load()))
    });
    let (owner, seen) = copied.ok_or(Reason::TupleInUse)?;
    flow.backend.set(owner.backend());
    let backend = tables.backend(owner.backend()).ok_or(Reason::Internal)?;
    let is_open = backend.id == owner.backend() && backend.accepts != 0;
    if is_open && lifecycle::is_in_time(&closing, owner.protocol(), seen, tables.now()) {
        Ok(())
    } else {
        Err(Reason::TupleInUse)
    }
}

/// Reserves a record: makes it BUSY with a new generation, and removes the old owner's reply index entry.
#[inline(always)]
fn take_record<'a, F: Family>(
    tables: &'a impl Steps<F>,
    settings: &Settings,
    flow: &Scratch<F>,
) -> Result<Found<'a, F>, Reason> {
    let (hash, shape) = (flow.hash.get(), F::shape(settings));
    let (home, second) = (record::home(hash, shape), record::second(hash, shape));
    let candidate = |bucket| {
        let protocol = flow.tuple.get().protocol;
        tables.candidate(bucket, record::preferred(hash), protocol, flow.now.get())
    };
    let (mut bucket, mut best) = (home, candidate(home)?);
    if !best.score.is_free() {
        let other = candidate(second)?;
        if other < best {
            (bucket, best) = (second, other);
        }
        if !best.score.may_take() {
            return Err(Reason::TableFull);
        }
    }
    let index = RecordIndex::new(bucket, best.way);
    let found = by_index::<F>(tables, index)?;
    let seen = found.control;
    // The flow may have been promoted since its record was chosen.
    if !evict::may_take(found.record, seen, flow.tuple.get().protocol, flow.now.get()) {
        return Err(Reason::Contended);
    }
    let generation = seen.generation().wrapping_add(1) & 0xff_ffff;
    let mine = Control::new(generation, State::BUSY, record::tag(hash));
    if !transition::replace(tables, found.record, seen, mine) {
        return Err(Reason::Contended);
    }
    if seen.state().holds_tuple() {
        reply_index::release::<F>(tables, settings, found.record, index, seen.generation());
    }
    Ok(Found { record: found.record, index, control: mine })
}

/// Refuses if another CPU is creating this flow, or has just created it. Of two CPUs at least one refuses; the client
/// repeats its packet.
#[inline(always)]
fn is_alone<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, mine: RecordIndex) -> Result<(), Reason> {
    // The closing flow is not a duplicate.
    let unproven = States::HALF_OPEN.and(States::REOPENING).and(States::BUSY);
    let rivals = if flow.closing().is_some() { unproven } else { unproven.and(States::ESTABLISHED) };
    if cfg!(feature = "without_same_flow_check") || record::anywhere(tables, rivals, Some(mine))?.is_none() {
        Ok(())
    } else {
        Err(Reason::Contended)
    }
}

/// Writes the record, and reserves a reply tuple for it.
#[inline(always)]
fn fill<F: Family>(
    tables: &impl Steps<F>,
    pool: Pool,
    slot: PoolSlot,
    flow: &Scratch<F>,
    mine: &Found<'_, F>,
) -> Result<(), Reason> {
    let record = mine.record;
    record.client.set(flow.tuple.get().source);
    record.listen.set(flow.tuple.get().destination);
    record.request_ports.set(flow.tuple.get().ports);
    record.last_seen.store(flow.now.get().0);
    let proof = match flow.going_on() {
        None => Proof::none(mine.control.generation(), flow.sequence.get()),
        Some(side) => Proof::computed(mine.control.generation(), side),
    };
    record.proof.store(proof.0);
    let (hop, generation) = (flow.client_hop.get(), mine.control.generation());
    record.client_hop.store(ClientHop::new(hop.destination, hop.interface, generation).0);
    record.hop_stamp.set(HopStamp::new(flow.hop_generation.get(), generation));

    // Two calls in sequence, not nested: the stacks of nested calls add up.
    let attempt = |probe, evict| {
        tables.write_reply_tuple(mine.index, probe)?;
        Ok(tables.reserve(mine.index, mine.control.generation(), probe, evict))
    };
    let search = mode::search(pool.mode().ok_or(Reason::Internal)?);
    let (mut reserved, mut oldest, mut probe) = (Reserve::Taken, 0, 0);
    let mut backend_of_oldest = flow.backend.get();
    while probe < PORT_PROBES {
        reserved = attempt(probe, search.evict)?;
        match reserved {
            Reserve::Mine => break,
            Reserve::Missing => return Err(Reason::Internal),
            Reserve::Taken | Reserve::Evictable(_) => {}
        }
        // One number, with the probe in the low eight bits. It is hidden from the verifier, which would otherwise explore the
        // rest of the loop once for each kind of result.
        let holder = opaque(reserved.rank() << 8 | u64::from(probe), pool.0);
        if holder > oldest {
            (oldest, backend_of_oldest) = (holder, flow.backend.get());
        }
        probe += 1;
        if flow.going_on().is_some() {
            break; // Its tuple is the only one.
        }
        if search.takes_another_backend && probe < PORT_PROBES {
            tables.usable_instead(slot, probe)?;
        }
    }
    // No tuple was free: evict the oldest holder that may be evicted.
    if reserved != Reserve::Mine && oldest >> 8 > Reserve::Taken.rank() {
        flow.backend.set(backend_of_oldest);
        reserved = attempt(oldest as u32 & 0xff, Holders::UNCERTAIN)?;
    }
    if reserved != Reserve::Mine {
        return Err(search.exhausted);
    }
    finish(tables, flow, mine)
}

#[inline(always)]
fn finish<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, mine: &Found<'_, F>) -> Result<(), Reason> {
    let deltas = deltas(&flow.tuple.get(), &flow.rewritten.get());
    flow.deltas.set(deltas);
    mine.record.deltas.set(deltas);
    if flow.going_on().is_some() {
        return Ok(()); // It is not new: another node has counted it.
    }
    let backend = tables.backend(flow.backend.get()).ok_or(Reason::Internal)?;
    tables.count_new_flow(backend.counters);
    if flow.retries.get() != 0 {
        tables.count_retried_flow(flow.service_counters.get());
    }
    Ok(())
}
