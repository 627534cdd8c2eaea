//! Client to backend: a packet of a known flow.

use lb_common::{
    backend::{Backend, BackendId},
    clock::{Age, Ticks},
    flow::{Computed, Deltas, Proof, State},
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
    table::handshake::Retry,
    table::lifecycle,
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
        flow.set_likely(None);
        tables.preload();
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
    let mut client = Client::NEW;
    if let Some(found) = found {
        match known(tables, tuple, packet.segment, found)? {
            Known::Forward(forward) => return Ok(Some(forward)),
            Known::Ended(of_flow) => client = of_flow,
        }
    }
    let flow = describe(tables, packet, hash)?;
    flow.refused_by.set(client.refused_by);
    flow.retries.set(client.retries);
    flow.has_record.set(has_record.into());
    if !is_syn {
        classify::service(tables, flow);
        flow.set_likely(None);
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
    flow.sequence.set(packet.segment.sequence);
    flow.set_going_on(packet.segment.goes_on().then_some(Computed::FromClient));
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

/// What becomes of a packet whose record was found.
enum Known<'a, F: Family> {
    Forward(Forward<'a, F>),
    /// The flow has ended, or its record changed owner during the lookup.
    Ended(Client),
}

/// What the ended flow tells of its client.
#[derive(Clone, Copy)]
struct Client {
    refused_by: BackendId,
    retries: u32,
}

impl Client {
    const NEW: Self = Self { refused_by: BackendId::NONE, retries: 0 };
}

/// A packet whose record was found.
#[inline(always)]
fn known<'a, F: Family>(
    tables: &'a impl Steps<F>,
    tuple: &Tuple<F>,
    segment: Segment,
    mut found: Found<'a, F>,
) -> Result<Known<'a, F>, Reason> {
    if !found.control.state().is_alone() {
        let Some(chosen) = tables.choose_record(found.index, found.control, segment)? else {
            return Ok(Known::Ended(Client::NEW));
        };
        let Some(again) = record::again(tables, chosen, tuple)? else { return Ok(Known::Ended(Client::NEW)) };
        found = again;
    }
    let copied = found.read(|it| {
        (it.owner.get(), record::reply_of::<F>(it).reversed(), it.deltas.get(), Ticks(it.last_seen.load()))
    });
    let Some((owner, rewritten, deltas, seen)) = copied else { return Ok(Known::Ended(Client::NEW)) };
    let backend = tables.backend(owner.backend()).ok_or(Reason::Internal)?;
    let Found { index, control, .. } = found;
    let is_first = segment.is_syn() || owner.protocol() == Protocol::Udp as u8;
    // The backend was removed, put in maint, or (UDP) went down.
    let has_lost_backend = backend.id != owner.backend();
    if has_lost_backend && !is_first {
        tables.end(index, control);
        return Ok(Known::Ended(Client::NEW));
    }
    let now = tables.now();
    if has_lost_backend || !lifecycle::is_in_time(&found, owner.protocol(), seen, now) {
        tables.free(index, control);
        return Ok(Known::Ended(Client::NEW));
    }
    if control.state() != State::ESTABLISHED || segment.is_fin_or_rst() {
        // A client that repeats its SYN (UDP: its datagram) to a backend that takes no new flows gets another backend.
        // So does one that opens a connection with the tuple of a flow that was computed, and not confirmed.
        let proof = || Proof(found.record.proof.load());
        let is_computed = || proof().computed_from(control.generation()).is_some();
        if control.state().is_half_open() && is_first && (backend.accepts == 0 || is_computed()) {
            tables.free(index, control);
            return Ok(Known::Ended(Client::NEW));
        }
        let idle = Age::new(now, seen).elapsed();
        if let Err(Retry) = tables.advance(index, control, Side::Client, segment, idle) {
            tables.free(index, control);
            let retries = control.state().retries() + u32::from(control.state().is_refused());
            return Ok(Known::Ended(Client { refused_by: backend.id, retries }));
        }
    }
    Ok(Known::Forward(Forward::request(backend, rewritten, deltas)))
}
