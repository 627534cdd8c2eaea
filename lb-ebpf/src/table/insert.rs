//! Making a flow: a record, a backend, a reply tuple.
//!
//! ```text
//! victim ─▶ claim its record (BUSY) ─▶ forget its hint ─▶ nobody else makes this flow?
//!        ─▶ write ─▶ claim a reply tuple, trying others ─▶ publish (HALF_OPEN)
//! ```

use lb_common::{
    cell::fence,
    flow::{Control, Proof, State, WAYS},
    hop::{ClientHop, HopStamp},
    limits::PORT_PROBES,
    reason::Reason,
    service::{Mode, SlotTable},
    settings::Settings,
};

use crate::{
    family::{Family, deltas},
    opaque::opaque,
    table::evict,
    table::lifecycle,
    table::record::{self, Found, by_number, kind},
    table::reply_index,
    table::scratch::NewFlow,
    tables::{FlowTables, Tables, count_half_open},
};

/// Makes a flow, and counts it for its backend.
#[inline(always)]
pub fn insert<F: Family, T: Tables + FlowTables<F>>(tables: &T, flow: &NewFlow<F>) -> Result<(), Reason> {
    let settings = tables.settings().ok_or(Reason::NotService)?;
    let slots = tables.slots(flow.pool.get()).ok_or(Reason::NoBackend)?;
    if slots.slots == 0 {
        return Err(Reason::NoBackend);
    }
    let turn = tables.turn(flow.pool.get()).ok_or(Reason::NoBackend)?.fetch_add(1);
    let victim = take_record(tables, settings, flow)?;
    let made = if is_alone(tables, flow, victim.number) {
        fill(tables, slots, turn, flow, &victim)
    } else {
        Err(Reason::Contended)
    };
    fence();
    let state = match made {
        Ok(()) if is_challenger(flow) => {
            // First: whoever finds the challenger finds the mark.
            lifecycle::challenge::<F, T>(tables, victim.number);
            State::CHALLENGER
        }
        Ok(()) => State::HALF_OPEN,
        Err(reason) => {
            victim.record.control.store(Control::new(victim.control.generation(), State::EMPTY, 0).0);
            return if reason == Reason::TupleInUse { rejoin(tables, flow) } else { made };
        }
    };
    // Counted before it is published: a flow that is promoted at once must not make the count negative.
    count_half_open::<F>(tables, 1);
    victim.record.control.store(victim.control.with_state(state).0);
    made
}

/// nat, and the only backend that would do has the closing flow of this tuple: the SYN goes there, on that flow. Whether
/// it opens another connection is for the backend to say (RFC 9293, 3.10.7.4; RFC 6191).
#[inline(always)]
fn rejoin<F: Family, T: Tables + FlowTables<F>>(tables: &T, flow: &NewFlow<F>) -> Result<(), Reason> {
    let closing = record::again(tables, flow.closing.get(), &flow.tuple.get()).ok_or(Reason::TupleInUse)?;
    let copied = closing.read(|it| {
        flow.rewritten.set(record::reply_of::<F>(it).reversed());
        flow.deltas.set(it.deltas.get());
        (it.owner.get(), it.last_seen.load())
    });
    let (owner, seen) = copied.ok_or(Reason::TupleInUse)?;
    flow.backend.set(owner.backend());
    let backend = tables.backend(owner.backend()).ok_or(Reason::TupleInUse)?;
    let is_open = backend.id == owner.backend() && backend.accepts != 0;
    if is_open && lifecycle::is_in_time(&closing, owner.protocol(), seen, tables.now()) {
        Ok(())
    } else {
        Err(Reason::TupleInUse)
    }
}

/// Claims a record for us: it is BUSY and of a new generation, and its old hint is gone.
#[inline(always)]
fn take_record<'a, F: Family, T: Tables + FlowTables<F>>(
    tables: &'a T,
    settings: &Settings,
    flow: &NewFlow<F>,
) -> Result<Found<'a, F>, Reason> {
    let (hash, shape) = (flow.hash.get(), F::shape(settings));
    let (home, second) = (record::home(hash, shape), record::second(hash, shape));
    let preferred = record::preferred(hash);
    let first = FlowTables::<F>::victim(tables, home, preferred, flow.tuple.get().protocol, flow.now.get());
    let mut number = home * WAYS as u32 + (first as u32 & (WAYS as u32 - 1));
    if first >= evict::BEST {
        let other =
            FlowTables::<F>::victim(tables, second, preferred, flow.tuple.get().protocol, flow.now.get());
        if other < first {
            number = second * WAYS as u32 + (other as u32 & (WAYS as u32 - 1));
        } else if first >= evict::NONE {
            return Err(Reason::TableFull);
        }
    }
    let found = by_number::<F>(tables, number).ok_or(Reason::TableFull)?;
    let seen = found.control;
    // It may have been promoted since it was chosen.
    if evict::score(found.record, seen, flow.tuple.get().protocol, flow.now.get(), 0) >= evict::NEVER {
        return Err(Reason::Contended);
    }
    let generation = seen.generation().wrapping_add(1) & 0xff_ffff;
    let mine = Control::new(generation, State::BUSY, record::tag(hash));
    if !found.record.control.replace(seen.0, mine.0) {
        return Err(Reason::Contended);
    }
    if seen.state().is_half_open() {
        count_half_open::<F>(tables, -1);
    }
    if seen.state().holds_tuple() {
        reply_index::forget::<F>(tables, settings, found.record, number, seen.generation());
    }
    Ok(Found { record: found.record, number, control: mine })
}

#[inline(always)]
fn is_challenger<F: Family>(flow: &NewFlow<F>) -> bool {
    flow.closing.get() != record::NOWHERE
}

/// Is nobody else making this flow, or has just made it? Whoever sees the other goes back; the client repeats itself.
#[inline(always)]
fn is_alone<F: Family, T: Tables + FlowTables<F>>(tables: &T, flow: &NewFlow<F>, mine: u32) -> bool {
    // The flow that is challenged does not count.
    let established = if is_challenger(flow) { 0 } else { kind::ESTABLISHED };
    let rivals = kind::HALF_OPEN | kind::CHALLENGER | kind::BUSY | established;
    cfg!(feature = "without_same_flow_check") || record::anywhere::<F, T>(tables, rivals, mine).is_none()
}

/// Writes the record, and finds it a reply tuple that nobody else has.
#[inline(always)]
fn fill<F: Family, T: Tables + FlowTables<F>>(
    tables: &T,
    slots: &SlotTable,
    turn: u64,
    flow: &NewFlow<F>,
    mine: &Found<'_, F>,
) -> Result<(), Reason> {
    let record = mine.record;
    record.client.set(flow.tuple.get().source);
    record.listen.set(flow.tuple.get().destination);
    record.request_ports.set(flow.tuple.get().ports);
    record.last_seen.store(flow.now.get());
    record.proof.store(Proof::none(mine.control.generation()).0);
    let (hop, generation) = (flow.client_hop.get(), mine.control.generation());
    record.client_hop.store(ClientHop::new(hop.destination, hop.interface, generation).0);
    record.hop_stamp.set(HopStamp::new(flow.hop_generation.get(), generation));

    // Two calls and not one within the other: stacks add up.
    let attempt = |probe, force| {
        FlowTables::<F>::propose(tables, mine.number, turn, probe)?;
        Ok(FlowTables::<F>::claim(tables, mine.number, mine.control.generation(), probe, force))
    };
    // With nat the holder is the same client's port: its new SYN is what ends the backend's TIME-WAIT (RFC 6191).
    let nat = slots.mode == Mode::Nat as u32;
    let force = if nat { reply_index::CLOSED_GIVE_WAY } else { reply_index::NO_FORCE };
    let (mut claimed, mut oldest, mut probe) = (reply_index::TAKEN, 0, 0);
    while probe < PORT_PROBES {
        claimed = attempt(probe, force)?;
        if claimed == reply_index::CLAIMED {
            break;
        }
        // The holder's age above, the probe below.
        let holder = opaque(claimed << 8 | u64::from(probe), claimed);
        if holder > oldest {
            oldest = holder;
        }
        probe += 1;
    }
    // All were taken: the oldest holder that has to give way does.
    if claimed != reply_index::CLAIMED && oldest >> 8 >= reply_index::EVICTABLE {
        claimed = attempt(oldest as u32 & 0xff, reply_index::HALF_OPEN_GIVE_WAY)?;
    }
    if claimed != reply_index::CLAIMED {
        return Err(if nat { Reason::TupleInUse } else { Reason::PortsExhausted });
    }
    finish(tables, flow, mine);
    Ok(())
}

#[inline(always)]
fn finish<F: Family, T: Tables + FlowTables<F>>(tables: &T, flow: &NewFlow<F>, mine: &Found<'_, F>) {
    let deltas = deltas(&flow.tuple.get(), &flow.rewritten.get());
    flow.deltas.set(deltas);
    mine.record.deltas.set(deltas);
    if let Some(backend) = tables.backend(flow.backend.get()) {
        tables.count_new_flow(backend.counters);
    }
}
