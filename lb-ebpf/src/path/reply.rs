//! Backend to client: a packet of a known flow.

use lb_common::{
    backend::Backend,
    cell::fence,
    clock::{Age, Ticks},
    flow::State,
    hop::{ClientHop, Hop, HopStamp, InterfaceIndex},
    reason::Reason,
};

use crate::{
    family::Family,
    packet::parse::{Layout, Packet},
    packet::rewrite::Rewrite,
    packet::tcp::Side,
    path::request::Forward,
    steps::Steps,
    storage::Maps,
    table::handshake::Retry,
    table::lifecycle,
    table::record::{self, Found},
    table::reply_index::{self, Owner},
};

/// What happens to a reply of a known flow.
pub enum Reply<'a, F: Family> {
    /// It is forwarded.
    Forward(Forward<'a, F>),
    /// Routes have changed since its next hop was looked up. The input of [`super::refresh`] is in [`Storage::scratch`].
    ///
    /// [`Storage::scratch`]: crate::storage::Storage::scratch
    Stale,
    /// The flow of this record was ended, or is about to be.
    Ended(Found<'a, F>),
}

/// Finds the flow of a reply. `None`: there is no such flow.
#[inline(always)]
pub fn find<'a, F: Family>(
    tables: &'a impl Steps<F>,
    packet: &Packet<F>,
) -> Result<Option<Reply<'a, F>>, Reason> {
    let settings = tables.settings();
    let (tuple, segment) = (&packet.tuple, packet.segment);
    let hash = F::hash(&settings.keys, tuple);
    let found = match reply_index::reply(tables, tuple, hash, F::shape(settings))? {
        Owner::Flow(found) => found,
        Owner::Ended(found) => return Ok(Some(Reply::Ended(found))),
        Owner::None => return Ok(None),
    };
    let copied = found.read(|it| {
        let stamp = it.hop_stamp.get();
        // `refresh` writes the hop before its stamp. The reverse order here ensures that the hop is not older than the stamp.
        fence();
        let hop = ClientHop(it.client_hop.load());
        let rewritten = record::request_of::<F>(it).reversed();
        (it.owner.get(), rewritten, it.deltas.get(), Ticks(it.last_seen.load()), stamp, hop)
    });
    let Some((owner, rewritten, deltas, seen, stamp, hop)) = copied else {
        return Ok(None);
    };
    let Found { index, control, .. } = found;
    let backend = tables.backend(owner.backend()).ok_or(Reason::Internal)?;
    if backend.id != owner.backend() {
        return Ok(Some(Reply::Ended(found)));
    }
    let now = tables.now();
    if !lifecycle::is_in_time(&found, owner.protocol(), seen, now) {
        return Ok(None);
    }
    if control.state() != State::ESTABLISHED || segment.is_fin_or_rst() {
        let idle = Age::new(now, seen).elapsed();
        let advanced = tables.advance(index, control, Side::Backend, segment, idle);
        advanced.map_err(|Retry| Reason::Retried)?;
    }
    if stamp != HopStamp::new(settings.hop_generation, control.generation()) {
        let flow = tables.scratch().ok_or(Reason::Internal)?;
        flow.layout.set(packet.layout);
        flow.record.set(index);
        flow.control.set(control.0);
        flow.backend.set(owner.backend());
        flow.rewritten.set(rewritten);
        flow.deltas.set(deltas);
        return Ok(Some(Reply::Stale));
    }
    let egress = tables.interface(hop.interface()).ok_or(Reason::Internal)?;
    let hop = Hop { destination: hop.mac(), source: egress.mac, interface: hop.interface(), mtu: egress.mtu };
    Ok(Some(Reply::Forward(Forward { rewrite: Rewrite::reply(rewritten, deltas, hop), backend })))
}

/// Counts a reply that was sent.
#[inline(always)]
pub fn count(
    maps: &impl Maps,
    layout: &Layout,
    backend: &Backend,
    sent: Result<InterfaceIndex, Reason>,
) -> Result<InterfaceIndex, Reason> {
    if sent.is_ok() {
        maps.count_returned(backend.counters, layout.frame.into());
    }
    sent
}
