//! Client to backend: a known flow, or a new one.

use lb_common::{
    backend::Backend,
    flow::{Deltas, Owner, State},
    net::Protocol,
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, Tuple},
    packet::parse::Packet,
    packet::rewrite::Rewrite,
    packet::tcp::{Segment, Side},
    steps::Steps,
    table::lifecycle,
    table::record::{self, Found, States},
};

/// What is done to a packet, and whose it is.
pub struct Forward<'a, F: Family> {
    /// The new addresses, ports and next hop.
    pub rewrite: Rewrite<F>,
    /// The backend that it goes to or comes from.
    pub backend: &'a Backend,
}

/// Finds the flow or makes it. `None`: no service listens there.
#[inline(always)]
pub fn forward<'a, F: Family>(
    tables: &'a impl Steps<F>,
    settings: &Settings,
    packet: &Packet<F>,
) -> Result<Option<Forward<'a, F>>, Reason> {
    let tuple = &packet.tuple;
    let hash = F::hash(&settings.keys, tuple);
    let mut found = record::at_home(tables, tuple, hash, F::shape(settings));
    if found.is_none() {
        describe(tables, packet, hash)?;
        // One of a hundred flows at half load lives in its second bucket.
        let second = record::second(hash, F::shape(settings));
        found = tables
            .in_bucket(second, States::LIVE, None)
            .and_then(|number| record::again(tables, number, tuple));
    }
    if let Some(found) = found
        && let Some(forward) = known(tables, tuple, packet.segment, found)
    {
        return Ok(Some(forward));
    }
    describe(tables, packet, hash)?;
    let made = match tables.classify() {
        // Two calls and not one within the other: stacks add up.
        Ok(()) => tables.insert(),
        Err(Reason::NotService) => return Ok(None),
        Err(reason) => Err(reason),
    };
    let flow = tables.scratch().ok_or(Reason::Contended)?;
    if let Err(reason) = made {
        tables.count_refused(flow.service_counters.get(), packet.frame);
        return Err(reason);
    }
    let backend = tables.backend(flow.backend.get()).ok_or(Reason::NoBackend)?;
    Ok(Some(to(backend, flow.rewritten.get(), flow.deltas.get())))
}

/// Writes down what the slow paths need to know of the packet.
#[inline(always)]
fn describe<F: Family>(tables: &impl Steps<F>, packet: &Packet<F>, hash: u64) -> Result<(), Reason> {
    let flow = tables.scratch().ok_or(Reason::Contended)?;
    flow.tuple.set(packet.tuple);
    flow.hash.set(hash);
    flow.is_syn.set(u32::from(packet.segment.is_syn()));
    flow.hops.set(u32::from(packet.hops));
    flow.length.set(packet.length);
    Ok(())
}

/// A packet of a known flow. `None`: the flow is over, or its record changed hands as it was looked at.
#[inline(always)]
fn known<'a, F: Family>(
    tables: &'a impl Steps<F>,
    tuple: &Tuple<F>,
    segment: Segment,
    mut found: Found<'a, F>,
) -> Option<Forward<'a, F>> {
    let state = found.control.state();
    if state != State::ESTABLISHED && state != State::HALF_OPEN {
        let chosen = tables.contest(found.number, found.control, segment)?;
        found = record::again(tables, chosen, tuple)?;
    }
    let (owner, rewritten, deltas, seen) = found.read(|it| {
        (it.owner.get(), record::reply_of::<F>(it).reversed(), it.deltas.get(), it.last_seen.load())
    })?;
    let backend = tables.backend(owner.backend())?;
    let Found { number, control, .. } = found;
    if is_given_up(control.state(), owner, backend, segment)
        || !lifecycle::is_in_time(&found, owner.protocol(), seen, tables.now())
    {
        tables.free(number, control);
        return None;
    }
    if control.state() != State::ESTABLISHED || segment.is_goodbye() {
        tables.advance(number, control, Side::Client, segment);
    }
    Some(to(backend, rewritten, deltas))
}

/// Has the flow lost its backend?
#[inline(always)]
fn is_given_up(state: State, owner: Owner, backend: &Backend, segment: Segment) -> bool {
    // It was removed, or put in maint, or (UDP) went down.
    if backend.id != owner.backend() {
        return true;
    }
    // A client that repeats its SYN (UDP: its datagram) to a backend that is down gets another one.
    let is_first = segment.is_syn() || owner.protocol() == Protocol::Udp as u8;
    state.is_half_open() && is_first && backend.accepts == 0
}

#[inline(always)]
fn to<F: Family>(backend: &Backend, rewritten: Tuple<F>, deltas: Deltas) -> Forward<'_, F> {
    Forward { rewrite: Rewrite::request(rewritten, deltas, backend.hop), backend }
}
