//! A flow of another node: its record is written into this node's table, so that its next packet finds it here.
//!
//! The daemon does this, while CPUs create flows. It follows the protocol of [`super::insert`], but everything is known
//! beforehand: the backend, the reply tuple, and that the handshake is proven. Nothing here is
//! [reported](crate::storage::FlowTable::report): the other node knows.

use lb_common::{
    cell::fence,
    clock::{Age, Ticks},
    flow::{Control, Owner, Proof, RecordIndex, State},
    hop::{ClientHop, HopStamp},
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf, Tuple, deltas},
    storage::FlowTable,
    table::evict,
    table::record::{self, Found, States, by_index},
    table::reply_index::{self, Holders, Reserve, Wanted},
    table::transition,
};

/// Records may be in use, and reply tuples may be reserved, for as long as a CPU needs for a packet.
const TRIES: u32 = 4;
/// A connection may use the addresses and ports of one that has just been closed. Nodes see the end of the former one at
/// most this far apart.
const CLOSING_SKEW: Ticks = Ticks::from_seconds(2);
/// The resolution of [`Record::last_seen`](lb_common::flow::Record::last_seen).
const RESOLUTION: Ticks = Ticks(256);

/// A flow of another node.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<F: Family> {
    /// Its requests.
    pub request: Tuple<F>,
    /// Its replies.
    pub reply: Tuple<F>,
    /// This node's id of its backend, its mode and protocol.
    pub owner: Owner,
    /// The sequence number of the backend's SYN-ACK, if it is known.
    pub answer: Option<u32>,
    /// When its last packet was seen.
    pub seen: Ticks,
    /// If this node does not have the flow, and its last packet was seen before then, it has ended here.
    pub seen_before: Option<Ticks>,
}

/// Where the flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its record.
    pub record: RecordIndex,
    /// The record's generation.
    pub generation: u32,
    /// When a packet of the flow was seen last, on either node.
    pub seen: Ticks,
    /// When this node had seen one. `None`: the flow was not here.
    pub seen_here: Option<Ticks>,
}

/// Why the flow cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node has a newer flow with the same addresses and ports of the client, or of the backend.
    Newer,
    /// It was closed or reset here.
    Closed,
    /// It has ended here: see [`Foreign::seen_before`].
    Ended,
    /// All records that it could have belong to flows in use.
    TableFull,
    /// CPUs were faster. It can be tried again.
    Contended,
}

/// Writes the flow, or finds that it is there already, and updates the time of its last packet.
pub fn adopt<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    flow: &Foreign<F>,
    now: Ticks,
) -> Result<Place, Refusal> {
    let mut tries = 0;
    loop {
        let adopted = attempt(table, settings, flow, now);
        tries += 1;
        if adopted != Err(Refusal::Contended) || tries == TRIES {
            return adopted;
        }
    }
}

fn attempt<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    flow: &Foreign<F>,
    now: Ticks,
) -> Result<Place, Refusal> {
    let hash = F::hash(&settings.keys, &flow.request);
    // A proven flow first: beside it, there may be a half-open one that reopens its tuple.
    for states in [States::ESTABLISHED, States::LIVE] {
        if let Some(found) = find(table, settings, hash, flow, states, None)?
            && let Some(place) = compare(table, settings, flow, &found, now)?
        {
            return Ok(place);
        }
    }
    if flow.seen_before.is_some_and(|limit| Age::new(now, flow.seen) > Age::new(now, limit)) {
        return Err(Refusal::Ended);
    }
    let mine = take_record(table, settings, hash, flow.request.protocol, now)?;
    let made = is_alone(table, settings, hash, flow, mine.index)
        .and_then(|()| write(table, settings, flow, &mine, now));
    fence();
    if let Err(refusal) = made {
        mine.record.control.store(Control::new(mine.control.generation(), State::EMPTY, 0).0);
        return Err(refusal);
    }
    transition::publish(table, mine.record, mine.control, State::ESTABLISHED);
    let generation = mine.control.generation();
    Ok(Place { record: mine.index, generation, seen: flow.seen, seen_here: None })
}

/// A flow of the same client tuple is here. `None`: it has been freed, because the other one is newer.
fn compare<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    flow: &Foreign<F>,
    found: &Found<'_, F>,
    now: Ticks,
) -> Result<Option<Place>, Refusal> {
    let copied = found.read(|it| (record::reply_of::<F>(it), Ticks(it.last_seen.load())));
    let (reply, seen) = copied.ok_or(Refusal::Contended)?;
    let (age, own_age) = (Age::new(now, flow.seen), Age::new(now, seen));
    let state = found.control.state();
    if state.is_shared() && reply == flow.reply {
        if age < own_age {
            found.record.last_seen.replace(seen.0, flow.seen.0);
        }
        return Ok(Some(Place {
            record: found.index,
            generation: found.control.generation(),
            seen: if age < own_age { flow.seen } else { seen },
            seen_here: Some(seen),
        }));
    }
    if state.is_reset() && reply == flow.reply && age <= own_age {
        // It has been restored there: the reset was forged. The next try finds it.
        let restored = found.control.with_state(State::ESTABLISHED);
        transition::replace(table, found.record, found.control, restored);
        return Err(Refusal::Contended);
    }
    let is_newer_here = if state.is_half_open() {
        // It is proven there, unless the client has begun another one since.
        own_age.elapsed().0 + RESOLUTION.0 < age.elapsed().0
    } else {
        state.is_shared() && own_age <= age
    };
    if is_newer_here {
        return Err(Refusal::Newer);
    }
    let has_ended = !state.is_half_open() && !state.is_shared();
    if has_ended && own_age.elapsed().0 < age.elapsed().0 + CLOSING_SKEW.0 {
        return Err(Refusal::Closed);
    }
    reply_index::free(table, settings, found.index, found.control);
    Ok(None)
}

/// A record of the flow's client, in one of these states.
fn find<'a, F: Family>(
    table: &'a impl FlowTable<F>,
    settings: &Settings,
    hash: u64,
    flow: &Foreign<F>,
    states: States,
    except: Option<RecordIndex>,
) -> Result<Option<Found<'a, F>>, Refusal> {
    let shape = F::shape(settings);
    for bucket in [record::home(hash, shape), record::second(hash, shape)] {
        let found = record::search(table, bucket, states, except, record::tag(hash), &flow.request);
        if let Some(index) = found.map_err(missing)? {
            return by_index(table, index).map(Some).map_err(missing);
        }
    }
    Ok(None)
}

/// Reserves a record: see [`super::insert`].
fn take_record<'a, F: Family>(
    table: &'a impl FlowTable<F>,
    settings: &Settings,
    hash: u64,
    protocol: u32,
    now: Ticks,
) -> Result<Found<'a, F>, Refusal> {
    let shape = F::shape(settings);
    let candidate = |bucket| {
        evict::candidate(table, settings, bucket, record::preferred(hash), protocol, now).map_err(missing)
    };
    let (mut bucket, second) = (record::home(hash, shape), record::second(hash, shape));
    let mut best = candidate(bucket)?;
    if !best.score.is_free() {
        let other = candidate(second)?;
        if other < best {
            (bucket, best) = (second, other);
        }
        if !best.score.may_take() {
            return Err(Refusal::TableFull);
        }
    }
    let index = RecordIndex::new(bucket, best.way);
    let found = by_index::<F>(table, index).map_err(missing)?;
    let seen = found.control;
    if !evict::may_take(found.record, seen, protocol, now) {
        return Err(Refusal::Contended);
    }
    let mine = Control::new(seen.generation().wrapping_add(1) & 0xff_ffff, State::BUSY, record::tag(hash));
    if !transition::replace(table, found.record, seen, mine) {
        return Err(Refusal::Contended);
    }
    if seen.state().holds_tuple() {
        reply_index::release::<F>(table, settings, found.record, index, seen.generation());
    }
    Ok(Found { record: found.record, index, control: mine })
}

/// Refuses if a CPU has just created the same flow: see [`super::insert`].
fn is_alone<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    hash: u64,
    flow: &Foreign<F>,
    mine: RecordIndex,
) -> Result<(), Refusal> {
    let rivals = States::LIVE.and(States::BUSY);
    match find(table, settings, hash, flow, rivals, Some(mine))? {
        None => Ok(()),
        Some(_) => Err(Refusal::Contended),
    }
}

/// Writes the record, and reserves its reply tuple.
fn write<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    flow: &Foreign<F>,
    mine: &Found<'_, F>,
    now: Ticks,
) -> Result<(), Refusal> {
    let (record, generation): (&RecordOf<F>, u32) = (mine.record, mine.control.generation());
    record.client.set(flow.request.source);
    record.listen.set(flow.request.destination);
    record.request_ports.set(flow.request.ports);
    record.owner.set(flow.owner);
    record.backend.set(flow.reply.source);
    record.source.set(flow.reply.destination);
    record.reply_ports.set(flow.reply.ports);
    record.last_seen.store(flow.seen.0);
    let proof = flow.answer.map_or(Proof::none(generation, 0), |answer| Proof::new(generation, answer));
    record.proof.store(proof.0);
    // Of an older routing generation: the first reply looks up the route.
    record.client_hop.store(ClientHop::new(Default::default(), Default::default(), generation).0);
    record.hop_stamp.set(HopStamp::new(settings.hop_generation.wrapping_sub(1), generation));
    record.deltas.set(deltas(&flow.request, &flow.reply.reversed()));
    fence();
    let wanted = Wanted { reply: flow.reply, client: flow.request.source, now };
    let reserved = |probe| {
        reply_index::reserve_for(table, settings, mine.index, generation, &wanted, probe, Holders::UNCERTAIN)
    };
    // A full line is tried entry by entry.
    let mut results = (0..lb_common::flow::ENTRIES_PER_LINE as u32).map(reserved);
    if results.any(|result| result == Reserve::Mine) { Ok(()) } else { Err(Refusal::Newer) }
}

/// The flow has ended on the other node, which saw its last packet then. It stays if this node has seen a later one. `as_state`:
/// how it has ended. Late packets of a closed or reset flow are forwarded, those of an ended one are not.
pub fn end<F: Family>(table: &impl FlowTable<F>, place: &Place, seen: Ticks, as_state: State) -> bool {
    let mut tries = 0;
    while tries < TRIES {
        let Ok(found) = by_index::<F>(table, place.record) else { return false };
        let control = found.control;
        if control.generation() != place.generation || !control.state().is_shared() {
            return false;
        }
        let later = Ticks(found.record.last_seen.load()).0.wrapping_sub(seen.0) as i32;
        if later > CLOSING_SKEW.0 as i32 {
            return false;
        }
        if transition::replace(table, found.record, control, control.with_state(as_state)) {
            return true;
        }
        tries += 1;
    }
    false
}

/// Frees the record of a flow that has ended, if it still is in this state.
pub fn free<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    record: RecordIndex,
    generation: u32,
    state: State,
) {
    let Ok(found) = by_index::<F>(table, record) else { return };
    if found.control.generation() == generation && found.control.state() == state {
        reply_index::free(table, settings, found.index, found.control);
    }
}

/// Frees the record of a flow that no other node has any more. Not if a packet has been seen since.
pub fn forget<F: Family>(table: &impl FlowTable<F>, settings: &Settings, place: &Place) {
    let Ok(found) = by_index::<F>(table, place.record) else { return };
    let is_it = found.control.generation() == place.generation && found.control.state().is_shared();
    if is_it && found.record.last_seen.load() == place.seen.0 {
        reply_index::free(table, settings, found.index, found.control);
    }
}

/// The place of a flow that is shared, by its tuples.
pub fn place_of<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    flow: &Foreign<F>,
) -> Option<Place> {
    let hash = F::hash(&settings.keys, &flow.request);
    let found = find(table, settings, hash, flow, States::ESTABLISHED, None).ok()??;
    let (reply, seen) = found.read(|it| (record::reply_of::<F>(it), Ticks(it.last_seen.load())))?;
    let is_same = found.control.state().is_shared() && reply == flow.reply;
    is_same.then_some(Place {
        record: found.index,
        generation: found.control.generation(),
        seen,
        seen_here: Some(seen),
    })
}

/// An element of the maps is missing: the daemon has all of them.
const fn missing(_: Reason) -> Refusal {
    Refusal::Contended
}
