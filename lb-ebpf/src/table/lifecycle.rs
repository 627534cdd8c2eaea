//! How a flow lives on: what each packet changes of its state, and how a new flow takes the place of a closing one.
//!
//! Between two records of one tuple (an old one that closes, and its half-open challenger) a SYN goes to the
//! challenger, so does the packet that proves its handshake, or that disowns what the backend answered; everything else
//! goes to the old one, until it is replaced.

use lb_common::{
    cell::fence,
    clock::{age, is_over},
    flow::{Control, Proof, State},
    net::Protocol,
    reason::Reason,
};

use crate::{
    family::{Family, RecordOf},
    packet::tcp::{self, RST, Segment, Side},
    steps::Steps,
    storage::count_half_open,
    table::record::{self, Found, States, by_number},
};

/// Who gets a client's packet that found a challenger or a closing flow? `None`: it opens a new flow.
#[inline(always)]
pub fn contest<F: Family>(
    tables: &impl Steps<F>,
    number: u32,
    control: Control,
    segment: Segment,
) -> Result<Option<u32>, Reason> {
    let found: Found<'_, F> = by_number(tables, number)?;
    if found.control.0 != control.0 {
        return Ok(Some(number)); // It changes while we look: the caller's second look will tell.
    }
    let is_challenger = control.state() == State::CHALLENGER;
    let other = twin(tables, &found)?;
    let challenger = if is_challenger { Some(number) } else { other };
    let Some(challenger) = challenger else {
        // A closing flow alone: a SYN may open it anew (RFC 9293, 3.6.1).
        return Ok(if segment.is_syn() { None } else { Some(number) });
    };
    let candidate: Found<'_, F> = by_number(tables, challenger)?;
    let proof = Proof(candidate.record.proof.load());
    if segment.is_syn()
        || segment.disowns()
        || (proof.is_of(candidate.control.generation()) && segment.proves(proof))
    {
        return Ok(Some(challenger));
    }
    Ok(if is_challenger { other.or(Some(number)) } else { Some(number) })
}

/// Marks the closing flow that is given a challenger. The other side's next word may end its closing, but not the
/// mark: else the client's proof would go to the old backend, and never reach the challenger.
#[inline(always)]
pub fn challenge<F: Family>(tables: &impl Steps<F>, challenger: u32) {
    // Sought again: since the packet was admitted its record may have been taken, by this very challenger too.
    let Ok(Some(number)) = record::anywhere(tables, States::ESTABLISHED, Some(challenger)) else { return };
    let mut tries = 0;
    while tries < 4 {
        let Ok(found) = by_number::<F>(tables, number) else { return };
        let challenged = State(found.control.state().0 | State::CHALLENGED);
        if !found.control.state().is_established()
            || found.record.control.replace(found.control.0, found.control.with_state(challenged).0)
        {
            return;
        }
        tries += 1;
    }
}

/// The other record of the same tuple: the challenger of an established flow, or the flow that is challenged.
#[inline(always)]
fn twin<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>) -> Result<Option<u32>, Reason> {
    let settings = tables.settings().ok_or(Reason::Internal)?;
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let tuple = record::request_of::<F>(found.record);
    flow.tuple.set(tuple);
    flow.hash.set(F::hash(&settings.keys, &tuple));
    let wanted = if found.control.state().is_half_open() { States::ESTABLISHED } else { States::CHALLENGER };
    record::anywhere(tables, wanted, Some(found.number))
}

/// Notes when a flow's packet came, unless it came too late: then its flow is over, whoever speaks.
///
/// Four times a second at most, because a line that is only read stays in every CPU's cache, and because no timeout is
/// as short as that: most packets compare once.
#[inline(always)]
pub fn is_in_time<F: Family>(found: &Found<'_, F>, protocol: u8, seen: u32, now: u32) -> bool {
    if (now ^ seen) >> 8 == 0 {
        return true;
    }
    if is_over(age(now, seen), found.control.state().timeout(protocol)) {
        // Unless somebody spoke between the two looks, at the record and at the clock.
        return found.record.last_seen.load() != seen;
    }
    // Unless somebody else has done so: who comes late must not make the flow, or the record's next one, look idle.
    found.record.last_seen.replace(seen, now);
    true
}

/// What a packet changes of its flow's state.
#[inline(always)]
pub fn advance<F: Family>(
    tables: &impl Steps<F>,
    number: u32,
    control: Control,
    side: Side,
    segment: Segment,
) {
    let Ok(found) = by_number::<F>(tables, number) else { return };
    if !control.is_still(found.control) {
        return; // The flow has ended meanwhile; this packet is forwarded all the same.
    }
    let (record, control) = (found.record, found.control);
    let is_tcp = record.owner.get().protocol() == Protocol::Tcp as u8;
    let state = control.state();
    if !state.is_half_open() {
        if is_tcp && side == Side::Backend && accepts_another::<F>(record, control, segment) {
            reopen(&found, segment);
        } else if is_tcp && !segment.is_syn() {
            let next = tcp::after(state, side, segment);
            if next != state {
                // Another packet may be faster: then its word counts.
                record.control.replace(control.0, control.with_state(next).0);
            }
        }
        return;
    }
    match side {
        Side::Client => {
            let proof = Proof(record.proof.load());
            if proof.is_of(control.generation()) && (!is_tcp || segment.proves(proof)) {
                // What proves may say goodbye, too: the bare acknowledgement before it was lost.
                promote(tables, &found, tcp::after(State::ESTABLISHED, side, segment));
            }
        }
        Side::Backend if !is_tcp || segment.is_syn_ack() => {
            answered::<F>(record, control, segment);
        }
        Side::Backend if segment.flags & RST != 0 => refuse(tables, &found),
        Side::Backend => {}
    }
}

/// Notes what the backend's SYN-ACK (or first datagram) said, unless the record has changed hands since: the next owner's
/// backend says it once, and its proof must not be lost.
#[inline(always)]
fn answered<F: Family>(record: &RecordOf<F>, control: Control, segment: Segment) {
    let before = record.proof.load();
    fence();
    if control.is_still(Control(record.control.load())) {
        record.proof.replace(before, Proof::new(control.generation(), segment.sequence).0);
    }
}

/// The flow begins anew. Its goodbyes must go, whatever else changes its state meanwhile; only then is the answer
/// noted, so that a repeated one tries again.
#[inline(always)]
fn reopen<F: Family>(found: &Found<'_, F>, segment: Segment) {
    let (record, mut control) = (found.record, found.control);
    let mut tries = 0;
    while tries < 4 {
        if record.control.replace(control.0, control.with_state(tcp::reopened(control.state())).0) {
            answered::<F>(record, control, segment);
            return;
        }
        let now = Control(record.control.load());
        if !control.is_still(now) || !now.state().is_established() {
            return;
        }
        control = now;
        tries += 1;
    }
}

/// Does a backend accept another connection than that which was proven? A SYN-ACK that it repeats is of the same.
#[inline(always)]
fn accepts_another<F: Family>(record: &RecordOf<F>, control: Control, segment: Segment) -> bool {
    let proof = Proof(record.proof.load());
    segment.is_syn_ack() && proof.is_of(control.generation()) && proof.sequence() != segment.sequence
}

/// The backend wants no such connection. A challenger goes at once: beside the flow that it challenged it would be a
/// second closing one, and get what belongs to the first.
#[inline(always)]
fn refuse<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>) {
    let control = found.control;
    if control.state() == State::CHALLENGER {
        tables.free(found.number, control);
    } else if found.record.control.replace(control.0, control.with_state(tcp::REFUSED).0) {
        count_half_open::<F>(tables, -1);
    }
}

/// The handshake is proven. A challenger takes the place of the flow that it challenged.
#[inline(always)]
fn promote<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, established: State) {
    let control = found.control;
    // Sought first: afterwards it could not be told from this one by its state.
    let old = if control.state() == State::CHALLENGER {
        // With its owner: the record may be another's when this one is promoted.
        twin(tables, found)
            .ok()
            .flatten()
            .and_then(|number| by_number::<F>(tables, number).ok())
            .map(|old| (old.number, old.control))
    } else {
        None
    };
    if !found.record.control.replace(control.0, control.with_state(established).0) {
        return;
    }
    count_half_open::<F>(tables, -1);
    let Some((number, seen)) = old else { return };
    // Its own packets may change its state while it is retired.
    let mut tries = 0;
    while tries < 4 {
        let Ok(old) = by_number::<F>(tables, number) else { return };
        if !seen.is_still(old.control) || !old.control.state().is_established() {
            return;
        }
        if old.record.control.replace(old.control.0, old.control.with_state(State::RETIRED).0) {
            return;
        }
        tries += 1;
    }
}
