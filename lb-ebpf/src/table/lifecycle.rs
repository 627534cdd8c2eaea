//! The lifecycle of a flow: how packets change its state, and how a reopening flow replaces a closing one.
//!
//! While a closing flow and a reopening one share a tuple, the reopening flow gets SYNs, the packet that proves its
//! handshake, and a RST that rejects the backend's ACK. The closing flow gets everything else, until it is replaced.

use lb_common::{
    clock::{Age, Ticks},
    flow::{Control, Proof, RecordIndex, State},
    net::Protocol,
    reason::Reason,
};

use crate::{
    family::{Family, RecordOf},
    packet::tcp::{self, RST, Segment, Side},
    steps::Steps,
    table::handshake::{self, Retry},
    table::record::{self, Found, States, by_index},
    table::transition,
};

/// The record that gets a client's packet which matched a reopening or closing flow. `None`: it opens a new flow.
#[inline(always)]
pub fn choose_record<F: Family>(
    tables: &impl Steps<F>,
    index: RecordIndex,
    control: Control,
    segment: Segment,
) -> Result<Option<RecordIndex>, Reason> {
    let found: Found<'_, F> = by_index(tables, index)?;
    if found.control.0 != control.0 {
        return Ok(Some(index)); // It has changed: the caller compares the tuple again.
    }
    let is_reopening = control.state().is_reopening();
    let other = other_record(tables, &found)?;
    let reopening = if is_reopening { Some(index) } else { other };
    let Some(reopening) = reopening else {
        // Only a closing flow: a SYN may reopen it (RFC 9293, 3.6.1).
        return Ok(if segment.is_syn() { None } else { Some(index) });
    };
    let candidate: Found<'_, F> = by_index(tables, reopening)?;
    let proof = Proof(candidate.record.proof.load());
    if segment.is_syn()
        || segment.rejects_ack()
        || (proof.is_of(candidate.control.generation()) && segment.proves(proof))
    {
        return Ok(Some(reopening));
    }
    Ok(if is_reopening { other.or(Some(index)) } else { Some(index) })
}

/// Marks the closing flow of a reopening one. The other side's next packet may restore the closing flow, but does not
/// remove the mark: otherwise the ACK that completes the new handshake would go to the old backend.
#[inline(always)]
pub fn mark_closing<F: Family>(tables: &impl Steps<F>, reopening: RecordIndex) {
    // Searched again: the record may have been taken since the packet was admitted, even by the reopening flow itself.
    let Ok(Some(index)) = record::anywhere(tables, States::ESTABLISHED, Some(reopening)) else { return };
    let mut tries = 0;
    while tries < 4 {
        let Ok(found) = by_index::<F>(tables, index) else { return };
        let marked = State(found.control.state().0 | State::SYN_WHILE_CLOSING);
        if !found.control.state().is_established()
            || transition::replace(tables, found.record, found.control, found.control.with_state(marked))
        {
            return;
        }
        tries += 1;
    }
}

/// The other record of the same tuple: the reopening flow of an established one, or the other way round.
#[inline(always)]
pub fn other_record<F: Family>(
    tables: &impl Steps<F>,
    found: &Found<'_, F>,
) -> Result<Option<RecordIndex>, Reason> {
    let settings = tables.settings();
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let tuple = record::request_of::<F>(found.record);
    flow.tuple.set(tuple);
    flow.hash.set(F::hash(&settings.keys, &tuple));
    let wanted = if found.control.state().is_half_open() { States::ESTABLISHED } else { States::REOPENING };
    record::anywhere(tables, wanted, Some(found.index))
}

/// Updates the time of a flow's last packet. False: the flow has expired.
///
/// It is written four times a second at most: a line that is only read stays in every CPU's cache, and no timeout needs a
/// finer resolution. Most packets make one comparison.
#[inline(always)]
pub fn is_in_time<F: Family>(found: &Found<'_, F>, protocol: u8, seen: Ticks, now: Ticks) -> bool {
    if (now.0 ^ seen.0) >> 8 == 0 {
        return true;
    }
    if Age::new(now, seen).is_over(found.control.state().timeout(protocol)) {
        // Unless another packet came between the reads of the record and of the clock.
        return found.record.last_seen.load() != seen.0;
    }
    // Compare-exchange: a delayed CPU must not make the flow, or the record's next owner, look idle.
    found.record.last_seen.replace(seen.0, now.0);
    true
}

/// Changes the state of a flow after a packet. `idle`: since the flow's last packet.
#[inline(always)]
pub fn advance<F: Family>(
    tables: &impl Steps<F>,
    index: RecordIndex,
    control: Control,
    side: Side,
    segment: Segment,
    idle: Ticks,
) -> Result<(), Retry> {
    let Ok(found) = by_index::<F>(tables, index) else { return Ok(()) };
    if !control.is_still(found.control) {
        return Ok(()); // The flow has just ended; this packet is still forwarded.
    }
    let is_tcp = found.record.owner.get().protocol() == Protocol::Tcp as u8;
    if !found.control.state().is_half_open() {
        if is_tcp {
            close(tables, &found, side, segment);
        }
        return Ok(());
    }
    match side {
        Side::Client => handshake::of_client(tables, &found, segment, is_tcp, idle),
        Side::Backend if !is_tcp || segment.is_syn_ack() => {
            handshake::answered(tables, &found, segment);
            Ok(())
        }
        Side::Backend if segment.flags & RST != 0 => handshake::refused(tables, &found, segment),
        Side::Backend => {
            handshake::went_on(tables, &found, segment);
            Ok(())
        }
    }
}

/// A segment of a flow whose handshake is proven.
#[inline(always)]
fn close<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, side: Side, segment: Segment) {
    let control = found.control;
    if side == Side::Backend && accepts_another::<F>(found.record, control, segment) {
        restart(tables, found, segment);
    } else if !segment.is_syn() {
        let next = tcp::after(control.state(), side, segment);
        if next != control.state() {
            // If another packet was faster, its change stands.
            transition::change(tables, found, next);
        }
    }
}

/// Restarts the flow. Its FINs and RSTs are cleared even if other packets change its state meanwhile. The answer is
/// stored only after that, so that a repeated SYN-ACK restarts it if this attempt fails.
#[inline(always)]
fn restart<F: Family>(tables: &impl Steps<F>, found: &Found<'_, F>, segment: Segment) {
    let (record, mut control) = (found.record, found.control);
    let mut tries = 0;
    while tries < 4 {
        let now = Found { record, index: found.index, control };
        if transition::change(tables, &now, tcp::restarted(control.state())) {
            handshake::answered(tables, found, segment);
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

/// Does a backend accept a connection other than the proven one? A repeated SYN-ACK belongs to the same connection.
#[inline(always)]
fn accepts_another<F: Family>(record: &RecordOf<F>, control: Control, segment: Segment) -> bool {
    let proof = Proof(record.proof.load());
    segment.is_syn_ack() && proof.is_of(control.generation()) && proof.sequence() != segment.sequence
}
