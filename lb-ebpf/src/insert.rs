//! Making a flow: a record, a backend, a reply tuple.
//!
//! ```text
//! victim ─▶ claim its record (BUSY) ─▶ forget its hint ─▶ nobody else makes this flow?
//!        ─▶ write ─▶ claim a reply tuple, trying others ─▶ publish (HALF_OPEN)
//! ```
//!
//! A newcomer takes an empty record, an expired, a closed or a half-open one, in this order; never one that is proven.

use lb_common::{
    cell::fence,
    flow::{Control, Hint, Owner, Proof, Shape, State, WAYS, age},
    limits::{MAX_SLOTS, MAX_SOURCES, PORT_PROBES},
    net::{Be16, Ports},
    reason::Reason,
    service::{Mode, SlotTable},
    settings::Settings,
};

use crate::{
    family::{Family, Tuple, deltas},
    find::{self, Found, by_number, kind},
    hash::reduce,
    hints, life,
    new_flow::NewFlow,
    tables::{FlowTables, Tables, count_half_open},
    veil::veil,
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
            life::challenge::<F, T>(tables, flow.closing.get());
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
    let closing = find::again(tables, flow.closing.get(), &flow.tuple.get()).ok_or(Reason::TupleInUse)?;
    let copied = closing.read(|it| {
        flow.rewritten.set(find::reply_of::<F>(it).reversed());
        flow.deltas.set(it.deltas.get());
        (it.owner.get(), it.last_seen.get())
    });
    let (owner, seen) = copied.ok_or(Reason::TupleInUse)?;
    flow.backend.set(owner.backend());
    let backend = tables.backend(owner.backend()).ok_or(Reason::TupleInUse)?;
    let is_open = backend.id == owner.backend() && backend.accepts != 0;
    if is_open && life::is_in_time(&closing, owner.protocol(), seen, flow.now.get()) {
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
    let (home, second) = (find::home(hash, shape), find::second(hash, shape));
    let preferred = find::preferred(hash);
    let first = FlowTables::<F>::victim(tables, home, preferred, flow.tuple.get().protocol, flow.now.get());
    let mut number = home * WAYS as u32 + (first as u32 & (WAYS as u32 - 1));
    if first >= BEST {
        let other =
            FlowTables::<F>::victim(tables, second, preferred, flow.tuple.get().protocol, flow.now.get());
        if other < first {
            number = second * WAYS as u32 + (other as u32 & (WAYS as u32 - 1));
        } else if first >= NONE {
            return Err(Reason::TableFull);
        }
    }
    let found = by_number::<F>(tables, number).ok_or(Reason::TableFull)?;
    let seen = found.control;
    // It may have been promoted since it was chosen.
    if score(found.record, seen, flow.tuple.get().protocol, flow.now.get(), 0) >= NONE >> 3 {
        return Err(Reason::Contended);
    }
    let generation = seen.generation().wrapping_add(1) & 0xff_ffff;
    let mine = Control::new(generation, State::BUSY, find::tag(hash));
    if !found.record.control.replace(seen.0, mine.0) {
        return Err(Reason::Contended);
    }
    if seen.state().is_half_open() {
        count_half_open::<F>(tables, -1);
    }
    if seen.state().holds_tuple() {
        hints::forget::<F>(tables, settings, found.record, number, seen.generation());
    }
    Ok(Found { record: found.record, number, control: mine })
}

#[inline(always)]
fn is_challenger<F: Family>(flow: &NewFlow<F>) -> bool {
    flow.closing.get() != find::NOWHERE
}

/// Is nobody else making this flow, or has just made it? Whoever sees the other goes back; the client repeats itself.
#[inline(always)]
fn is_alone<F: Family, T: Tables + FlowTables<F>>(tables: &T, flow: &NewFlow<F>, mine: u32) -> bool {
    // The flow that is challenged does not count.
    let established = if is_challenger(flow) { 0 } else { kind::ESTABLISHED };
    let rivals = kind::HALF_OPEN | kind::CHALLENGER | kind::BUSY | established;
    cfg!(feature = "without_same_flow_check") || find::anywhere::<F, T>(tables, rivals, mine).is_none()
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
    record.last_seen.set(flow.now.get());
    record.proof.store(Proof::NONE.0);
    // The generation before the hop: see `reply::refresh`.
    record.hop_generation.set(flow.hop_generation.get());
    fence();
    record.client_mac.set(flow.client_hop.get().destination);
    record.client_interface.set(flow.client_hop.get().interface as u16);

    let attempt = |probe, force| {
        FlowTables::<F>::attempt(tables, mine.number, mine.control.generation(), turn, probe, force)
    };
    let (mut claimed, mut oldest, mut probe) = (hints::TAKEN, 0, 0);
    while probe < PORT_PROBES {
        claimed = attempt(probe, false);
        if claimed == hints::CLAIMED || claimed >= FAILED {
            break;
        }
        // The holder's age above, the probe below.
        let holder = veil(claimed << 8 | u64::from(probe), claimed);
        if holder > oldest {
            oldest = holder;
        }
        probe += 1;
    }
    // All were taken: the oldest holder that has to give way does.
    if claimed != hints::CLAIMED && claimed < FAILED && oldest >> 8 >= hints::EVICTABLE {
        claimed = attempt(oldest as u32 & 0xff, true);
    }
    match claimed {
        hints::CLAIMED => {
            finish(tables, flow, mine);
            Ok(())
        }
        FAILED => Err(Reason::Contended),
        NO_NEIGHBOUR => Err(Reason::NoBackendNeighbour),
        TOO_BIG => Err(Reason::TooBig),
        _ if slots.mode == Mode::Nat as u32 => Err(Reason::TupleInUse),
        _ => Err(Reason::PortsExhausted),
    }
}

/// [`attempt`]: the controller is between two steps, the backend is not there.
pub const FAILED: u64 = 1 << 40;
/// [`attempt`]: the backend's next hop is not resolved.
pub const NO_NEIGHBOUR: u64 = FAILED + 1;
/// [`attempt`]: the packet does not fit through the interface towards the backend.
pub const TOO_BIG: u64 = FAILED + 2;

/// Tries one reply tuple for the record that is being filled: full-nat tries ports of ours, nat (where the client keeps
/// its port) tries backends. Returns what [`hints::claim`] does, or one of the failures above.
#[inline(always)]
pub fn attempt<F: Family, T: Tables + FlowTables<F>>(
    tables: &T,
    number: u32,
    generation: u32,
    turn: u64,
    probe: u32,
    force: bool,
) -> u64 {
    let Some(settings) = tables.settings() else { return FAILED };
    let flow: Option<&NewFlow<F>> = tables.new_flow();
    let Some(flow) = flow else { return FAILED };
    let Some(slots) = tables.slots(flow.pool.get()) else { return FAILED };
    let Some(Found { record, .. }) = by_number::<F>(tables, number) else { return FAILED };
    let nat = slots.mode == Mode::Nat as u32;
    // Not on the fast path: one division per flow keeps round robin exact for any number of backends.
    let count = u64::from(slots.slots).max(1);
    let slot = turn.wrapping_add(if nat { u64::from(probe) } else { 0 }) % count;
    let id = slots.backend[slot as usize & (MAX_SLOTS - 1)];
    let Some(backend) = tables.backend(id) else { return FAILED };
    if backend.id != id {
        return FAILED;
    }
    if flow.length.get() > backend.hop.mtu {
        return if backend.hop.interface == 0 { NO_NEIGHBOUR } else { TOO_BIG };
    }
    let tuple = flow.tuple.get();
    let (source, port) = if nat {
        (tuple.source, tuple.ports.source())
    } else {
        // The keyed hash says where to begin: nobody can foresee the port, and most find theirs at once.
        let hash = flow.hash.get();
        let picked = slots.source[((hash >> 8) as u32).wrapping_add(probe) as usize & (MAX_SOURCES - 1)];
        let bits = (hash as u32).rotate_left(16) ^ probe.wrapping_mul(0x9e37_79b1);
        (F::from_key(picked), Be16::new(settings.ports.port(reduce(bits, settings.ports.size()))))
    };
    let rewritten = Tuple::<F> {
        source,
        destination: F::from_key(backend.address),
        ports: Ports::new(port, backend.port),
        protocol: tuple.protocol,
    };
    flow.backend.set(id);
    flow.rewritten.set(rewritten);
    let reply = rewritten.reversed();
    record.owner.set(Owner::new(id, tuple.protocol as u8));
    record.backend.set(reply.source);
    record.source.set(reply.destination);
    record.reply_ports.set(reply.ports);
    fence();
    let hash = F::hash(&settings.keys, &reply);
    let hint = Hint::new(find::tag(hash), generation, number);
    let force = if force {
        hints::HALF_OPEN_GIVE_WAY
    } else if nat {
        // With nat the holder is the same client's port: its new SYN is what ends the backend's TIME-WAIT (RFC 6191).
        hints::CLOSED_GIVE_WAY
    } else {
        hints::NO_FORCE
    };
    FlowTables::<F>::claim(tables, hash, hint.0, probe, force)
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

/// Scores at or above this are worth a look into the second bucket.
const BEST: u64 = 1 << 33;
/// No record of the bucket may be taken.
const NONE: u64 = (u32::MAX as u64) << 3;

/// The record of a bucket that a newcomer may take: `score << 3 | way`, the lower the better.
#[inline(always)]
pub fn victim<F: Family, T: Tables + FlowTables<F>>(
    tables: &T,
    shape: Shape,
    bucket: u32,
    preferred: u32,
    protocol: u32,
    now: u32,
) -> u64 {
    let Some(bucket) = FlowTables::<F>::bucket(tables, bucket) else { return NONE };
    let half_open = FlowTables::<F>::half_open(tables).map_or(0, |word| word.load());
    let above = if half_open >= u64::from(shape.half_open) { ABOVE_LIMIT } else { 0 };
    let mut best = NONE;
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (preferred + step) & (WAYS as u32 - 1);
        let record = &bucket.way[way as usize];
        let control = Control(record.control.load());
        let score = veil(score(record, control, protocol, now, above), control.0);
        // Among equals the first wins, which is the nearest to the preferred way.
        if score < best >> 3 {
            best = score << 3 | u64::from(way);
        }
        step += 1;
    }
    best
}

const EXPIRED: u64 = 1;
const CLOSED: u64 = 1 << 30;
const HALF_OPEN: u64 = 2 << 30;
/// Above the limit of half-open flows a newcomer takes the place of one of them, if the bucket has one, before that of
/// a flow that is over, or one that is free: a flood may not have those.
const ABOVE_LIMIT: u64 = 3 << 30;
/// Ages are cut to this, so that a score keeps to its class.
const OLDEST: u32 = (1 << 30) - 3;

/// How little is lost with a record. Within closed and half-open the oldest goes first.
#[inline(always)]
fn score<A: Copy, S>(
    record: &lb_common::flow::Record<A, S>,
    control: Control,
    protocol: u32,
    now: u32,
    above: u64,
) -> u64 {
    let state = control.state();
    if state.0 == State::EMPTY.0 {
        return above;
    }
    if !state.holds_tuple() {
        return NONE >> 3;
    }
    let idle = age(now, record.last_seen.get());
    let theirs = record.owner.get().protocol();
    if idle > state.timeout(theirs) {
        return EXPIRED;
    }
    let youth = u64::from(OLDEST - idle.min(OLDEST));
    if state.is_closed() {
        return (above | CLOSED) + 1 + youth;
    }
    if state.is_half_open() && !hints::outranks(theirs, protocol) {
        return HALF_OPEN + youth;
    }
    NONE >> 3
}
