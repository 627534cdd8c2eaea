//! The handshake of a half-open flow: the backend answers, refuses, or is silent; the client proves that it has received the
//! answer.
//!
//! A refusal is hidden from the client if the backend's pool has others (`on_refused = "retry"`): the flow is marked, and the
//! client's next SYN opens a flow to another backend. So a server that has just died costs a connection a second, the
//! client's retransmission timeout, instead of an error.

use lb_common::{
    backend::{Backend, Load},
    cell::fence,
    clock::Ticks,
    ejection::{Ejection, UNANSWERED},
    flow::{Computed, Control, Proof, State},
    limits::MAX_RETRIES,
};

use crate::{
    family::Family,
    packet::tcp::{self, Segment, Side},
    picker::ejection,
    steps::Steps,
    table::first_seen,
    table::lifecycle::other_record,
    table::record::{Found, by_index, request_of},
    table::transition,
};

/// The packet is not forwarded. If it is a client's SYN, it opens a flow to another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry;

/// A packet of the client. `idle`: since the packet before.
#[inline(always)]
pub fn of_client<F: Family>(
    tables: &impl Steps<F>,
    found: &Found<'_, F>,
    segment: Segment,
    is_tcp: bool,
    idle: Ticks,
) -> Result<(), Retry> {
    let control = found.control;
    let proof = Proof(found.record.proof.load());
    if proof.is_of(control.generation()) {
        if !is_tcp || segment.proves(proof) {
            // The proof may be a FIN: the bare ACK before it was lost.
            promote(tables, found, tcp::after(State::ESTABLISHED, Side::Client, segment));
        }
        return Ok(());
    }
    if proof.computed_from(control.generation()) == Some(Computed::FromBackend) {
        return confirm_client(found, proof, segment);
    }
    if control.state().is_refused() {
        return Err(Retry);
    }
    // A SYN that was duplicated on the way says nothing about the backend.
    if !segment.is_syn() || idle.0 < UNANSWERED.0 {
        return Ok(());
    }
    let Some((backend, load)) = backend_of(tables, found) else { return Ok(()) };
    tables.count_unanswered(backend.counters);
    let now = tables.now();
    // A backend that has answered another client since the SYN before is alive: it ignores this one, for example because its
    // checksum is wrong.
    if !load.has_answered_within(idle, now) {
        ejection::failed(tables, backend, load, now);
    }
    if Ejection(load.ejection.load()).is_ejected() { Err(Retry) } else { Ok(()) }
}

/// A flow that was computed from a segment of its backend: the client goes on with it, too, or it does not know it.
#[inline(always)]
fn confirm_client<F: Family>(found: &Found<'_, F>, proof: Proof, segment: Segment) -> Result<(), Retry> {
    if !segment.goes_on() {
        return Err(Retry);
    }
    let confirmed = Proof::computed(found.control.generation(), Computed::FromClient);
    found.record.proof.replace(proof.0, confirmed.0);
    Ok(())
}

/// A segment of the backend that is neither SYN-ACK nor RST. If its flow was computed from a segment of the client, it shows that
/// the backend has this connection.
#[inline(always)]
pub fn went_on<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, segment: Segment) {
    let proof = Proof(found.record.proof.load());
    if proof.computed_from(found.control.generation()) == Some(Computed::FromClient) && segment.goes_on() {
        promote(tables, found, tcp::after(State::ESTABLISHED, Side::Backend, segment));
    }
}

/// The backend's SYN-ACK (UDP: any datagram). Its sequence number is stored, unless the record has changed owner: the SYN-ACK
/// of the record's next flow may come only once, and must not be overwritten.
#[inline(always)]
pub fn answered<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, segment: Segment) {
    let (record, control) = (found.record, found.control);
    let before = record.proof.load();
    fence();
    if control.is_still(Control(record.control.load())) {
        record.proof.replace(before, Proof::new(control.generation(), segment.sequence).0);
    }
    if control.state().is_refused() {
        // The refusal was forged.
        transition::replace(tables, record, control, control.with_state(control.state().unrefused()));
    }
    if let Some((backend, load)) = backend_of(tables, found) {
        load.answers_at(tables.now());
        ejection::end(load, || tables.turn(backend.pool));
    }
}

/// The backend's RST. It is a refusal if it acknowledges the client's SYN; a client ignores any other (RFC 9293, 3.10.7.3).
#[inline(always)]
pub fn refused<F: Family>(
    tables: &impl Steps<F>,
    found: &Found<'_, F>,
    segment: Segment,
) -> Result<(), Retry> {
    let (record, control) = (found.record, found.control);
    let proof = Proof(record.proof.load());
    if proof.is_of(control.generation()) {
        end(tables, found);
        return Ok(());
    }
    if let Some(side) = proof.computed_from(control.generation()) {
        return not_there(tables, found, side);
    }
    if !segment.acknowledges(proof.sequence()) {
        return Ok(());
    }
    if control.state().is_refused() {
        return Err(Retry);
    }
    let Some((backend, load)) = backend_of(tables, found) else { return Ok(()) };
    tables.count_refusal(backend.counters);
    let now = tables.now();
    // A backend that answers others has not died. With nat, a client could forge its RST.
    if !load.has_answered_within(UNANSWERED, now) {
        ejection::failed(tables, backend, load, now);
    }
    if backend.retries == 0 || control.state().retries() >= MAX_RETRIES {
        end(tables, found);
        return Ok(());
    }
    transition::replace(tables, record, control, control.with_state(control.state().refused()));
    Err(Retry)
}

/// The backend does not have the connection of a flow that was computed, or ends it. As long as another node may know a backend
/// that has it, the client does not learn so.
#[inline(always)]
fn not_there<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, from: Computed) -> Result<(), Retry> {
    let request = request_of::<F>(found.record);
    tables.free(found.index, found.control);
    if from == Computed::FromClient && !first_seen::may_be_told(tables, &request) {
        Err(Retry)
    } else {
        Ok(())
    }
}

/// The backend of a flow. `None`: it was removed, or the record has another flow by now, whose backend has done nothing.
#[inline(always)]
fn backend_of<'a, F: Family>(
    tables: &'a impl Steps<F>,
    found: &Found<'_, F>,
) -> Option<(&'a Backend, &'a Load)> {
    let id = found.read(|it| it.owner.get())?.backend();
    let backend = tables.backend(id).filter(|backend| backend.id == id)?;
    Some((backend, tables.load_of(backend)))
}

/// The client receives the refusal. A reopening flow is freed at once: otherwise there would be two closing flows of one
/// tuple, and it could get the packets of the other.
#[inline(always)]
fn end<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>) {
    let control = found.control;
    if control.state().is_reopening() {
        tables.free(found.index, control);
    } else {
        transition::replace(tables, found.record, control, control.with_state(tcp::REFUSED));
    }
}

/// The handshake is proven. A reopening flow replaces the closing one.
#[inline(always)]
fn promote<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, established: State) {
    let promoted = || transition::change(tables, found, established);
    // Searched first: afterwards both have the same state.
    let Some(old) = closing_of(tables, found) else {
        promoted();
        return;
    };
    if promoted() {
        retire(tables, old);
    }
}

/// The closing flow of a reopening one. Its control word tells later whether the record has another owner by then.
#[inline(always)]
fn closing_of<'a, F: Family>(tables: &'a impl Steps<F>, found: &Found<'_, F>) -> Option<Found<'a, F>> {
    if !found.control.state().is_reopening() {
        return None;
    }
    by_index(tables, other_record(tables, found).ok()??).ok()
}

/// Retires a closing flow that another flow has replaced, unless its record has changed owner.
#[inline(always)]
fn retire<F: Family>(tables: &impl Steps<F>, closing: Found<'_, F>) {
    let Found { index, control: seen, .. } = closing;
    // Retried, because its own packets may change its state meanwhile.
    let mut tries = 0;
    while tries < 4 {
        let Ok(old) = by_index::<F>(tables, index) else { return };
        if !seen.is_still(old.control) || !old.control.state().is_established() {
            return;
        }
        if transition::change(tables, &old, State::RETIRED) {
            return;
        }
        tries += 1;
    }
}
