//! Client to backend: a packet of a known flow.

use lb_common::{
    backend::Backend,
    clock::Ticks,
    flow::{Deltas, State},
    hop::InterfaceIndex,
    net::Protocol,
    reason::Reason,
};

use crate::{
    family::{Family, Tuple},
    packet::parse::{Layout, Packet},
    packet::rewrite::Rewrite,
    packet::tcp::{Segment, Side},
    path::classify,
    steps::Steps,
    storage::Maps,
    table::lifecycle,
    table::preload,
    table::record::{self, Found, States},
    table::scratch::Scratch,
};

/// A packet's rewrite, and its backend.
pub struct Forward<'a, F: Family> {
    /// The new addresses, ports and next hop.
    pub rewrite: Rewrite<F>,
    /// The backend that it goes to or comes from.
    pub backend: &'a Backend,
}

impl<'a, F: Family> Forward<'a, F> {
    /// A request that becomes `tuple` on its way to a backend.
    #[inline(always)]
    pub fn request(backend: &'a Backend, tuple: Tuple<F>, deltas: Deltas) -> Self {
        Self { rewrite: Rewrite::request(tuple, deltas, backend.hop), backend }
    }
}

/// Finds the flow of a request. `None`: there is none, and the packet and its service are in [`Storage::scratch`] for
/// [`super::new_flow`].
///
/// [`Storage::scratch`]: crate::storage::Storage::scratch
#[inline(always)]
pub fn find<'a, F: Family>(
    tables: &'a impl Steps<F>,
    packet: &Packet<F>,
) -> Result<Option<Forward<'a, F>>, Reason> {
    let settings = tables.settings();
    let tuple = &packet.tuple;
    let hash = F::hash(&settings.keys, tuple);
    let is_syn = packet.segment.is_syn();
    if is_syn {
        let flow = describe(tables, packet, hash)?;
        classify::service(tables, flow);
        preload::reply_line(tables, flow);
    }
    let mut found = record::at_home(tables, tuple, hash, F::shape(settings))?;
    let mut has_record = found.is_some();
    if !has_record {
        describe(tables, packet, hash)?;
        // At half load, one flow in a hundred is in its second bucket.
        let second = record::second(hash, F::shape(settings));
        if let Some(index) = tables.in_bucket(second, States::LIVE, None)? {
            has_record = true;
            found = record::again(tables, index, tuple)?;
        }
    }
    if let Some(found) = found
        && let Some(forward) = known(tables, tuple, packet.segment, found)?
    {
        return Ok(Some(forward));
    }
    let flow = describe(tables, packet, hash)?;
    flow.has_record.set(has_record.into());
    if !is_syn {
        classify::service(tables, flow);
    }
    Ok(None)
}

/// Writes the input of the slow paths.
#[inline(always)]
fn describe<'a, F: Family>(
    tables: &'a impl Steps<F>,
    packet: &Packet<F>,
    hash: u64,
) -> Result<&'a Scratch<F>, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    flow.tuple.set(packet.tuple);
    flow.hash.set(hash);
    flow.is_syn.set(u32::from(packet.segment.is_syn()));
    flow.layout.set(packet.layout);
    Ok(flow)
}

/// Counts a request, whether it was forwarded or not.
#[inline(always)]
pub fn count(
    maps: &impl Maps,
    layout: &Layout,
    backend: &Backend,
    sent: Result<InterfaceIndex, Reason>,
) -> Result<InterfaceIndex, Reason> {
    match sent {
        Ok(_) => maps.count_forwarded(backend.counters, layout.frame.into()),
        Err(_) => maps.count_refused(backend.service_counters, layout.frame.into()),
    }
    sent
}

/// A packet of a known flow. `None`: the flow has ended, or its record changed owner during the lookup.
#[inline(always)]
fn known<'a, F: Family>(
    tables: &'a impl Steps<F>,
    tuple: &Tuple<F>,
    segment: Segment,
    mut found: Found<'a, F>,
) -> Result<Option<Forward<'a, F>>, Reason> {
    let state = found.control.state();
    if state != State::ESTABLISHED && state != State::HALF_OPEN {
        let Some(chosen) = tables.choose_record(found.index, found.control, segment)? else {
            return Ok(None);
        };
        let Some(again) = record::again(tables, chosen, tuple)? else { return Ok(None) };
        found = again;
    }
    let copied = found.read(|it| {
        (it.owner.get(), record::reply_of::<F>(it).reversed(), it.deltas.get(), Ticks(it.last_seen.load()))
    });
    let Some((owner, rewritten, deltas, seen)) = copied else { return Ok(None) };
    let backend = tables.backend(owner.backend()).ok_or(Reason::Internal)?;
    let Found { index, control, .. } = found;
    // The backend was removed, put in maint, or (UDP) went down.
    let has_lost_backend = backend.id != owner.backend();
    let is_first = segment.is_syn() || owner.protocol() == Protocol::Udp as u8;
    if has_lost_backend && !is_first {
        tables.end(index, control);
        return Ok(None);
    }
    // A client that repeats its SYN (UDP: its datagram) to a backend that takes no new flows gets another backend.
    let gets_another = control.state().is_half_open() && is_first && backend.accepts == 0;
    if has_lost_backend
        || gets_another
        || !lifecycle::is_in_time(&found, owner.protocol(), seen, tables.now())
    {
        tables.free(index, control);
        return Ok(None);
    }
    if control.state() != State::ESTABLISHED || segment.is_fin_or_rst() {
        tables.advance(index, control, Side::Client, segment);
    }
    Ok(Some(Forward::request(backend, rewritten, deltas)))
}
