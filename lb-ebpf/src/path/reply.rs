//! Backend to client: a known flow, or nothing of ours.

use lb_common::{
    cell::fence,
    flow::{Control, State},
    hop::{ClientHop, Hop, HopStamp},
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, Tuple},
    packet::rewrite::Rewrite,
    packet::tcp::{Segment, Side},
    path::request::Forward,
    steps::Steps,
    table::lifecycle,
    table::record::{self, Found, by_number},
    table::reply_index,
};

/// A packet of a known flow. `None`: there is no such flow.
#[inline(always)]
pub fn forward<'a, F: Family>(
    tables: &'a impl Steps<F>,
    settings: &Settings,
    tuple: &Tuple<F>,
    segment: Segment,
) -> Result<Option<Forward<'a, F>>, Reason> {
    let hash = F::hash(&settings.keys, tuple);
    let Some(found) = reply_index::reply(tables, tuple, hash, F::shape(settings)) else { return Ok(None) };
    let copied = found.read(|it| {
        let stamp = it.hop_stamp.get();
        // `refresh` writes the hop before its stamp: whoever reads them the other way round gets no older hop.
        fence();
        let hop = ClientHop(it.client_hop.load());
        let rewritten = record::request_of::<F>(it).reversed();
        (it.owner.get(), rewritten, it.deltas.get(), it.last_seen.load(), stamp, hop)
    });
    let Some((owner, rewritten, deltas, seen, stamp, hop)) = copied else {
        return Ok(None);
    };
    let Found { number, control, .. } = found;
    let Some(backend) = tables.backend(owner.backend()) else { return Ok(None) };
    if backend.id != owner.backend() || !lifecycle::is_in_time(&found, owner.protocol(), seen, tables.now()) {
        return Ok(None);
    }
    if control.state() != State::ESTABLISHED || segment.is_goodbye() {
        tables.advance(number, control, Side::Backend, segment);
    }
    let hop = if stamp == HopStamp::new(settings.hop_generation, control.generation()) {
        let egress = tables.interface(hop.interface()).ok_or(Reason::NoClientRoute)?;
        Hop { destination: hop.mac(), source: egress.mac, interface: hop.interface(), mtu: egress.mtu }
    } else {
        let flow = tables.scratch().ok_or(Reason::NoClientRoute)?;
        flow.tuple.set(rewritten);
        tables.refresh(number, control)?;
        flow.client_hop.get()
    };
    Ok(Some(Forward { rewrite: Rewrite::reply(rewritten, deltas, hop), backend }))
}

/// Looks up the next hop for the tuple in [`Storage::scratch`], and writes it there and into the record.
///
/// The record may change hands meanwhile, and nothing says how long a CPU (of a virtual machine, say) stands still
/// between two instructions. So the hop is one word that is only written over the one that was the flow's, and its stamp
/// names the owner: whatever of this comes late, the next owner's replies do not go to this one's client.
#[inline(always)]
pub fn refresh<F: Family>(tables: &impl Steps<F>, number: u32, control: Control) -> Result<(), Reason> {
    let settings = tables.settings().ok_or(Reason::NoClientRoute)?;
    let generation = settings.hop_generation;
    let flow = tables.scratch().ok_or(Reason::NoClientRoute)?;
    let hop = tables.route(flow.tuple.get().source, flow.tuple.get().destination)?;
    flow.client_hop.set(hop);
    let Found { record, .. } = by_number::<F>(tables, number).ok_or(Reason::Contended)?;
    let owner = control.generation();
    let (before, after) = (record.client_hop.load(), ClientHop::new(hop.destination, hop.interface, owner).0);
    fence();
    if control.is_still(Control(record.control.load())) && record.client_hop.replace(before, after) {
        // Last: whoever sees this stamp sees the hop that belongs to it.
        record.hop_stamp.set(HopStamp::new(generation, owner));
        fence();
        if record.client_hop.load() != after {
            // Somebody else looked it up as well. Nobody knows who was later: the next reply looks again.
            record.hop_stamp.set(HopStamp::new(generation.wrapping_sub(1), owner));
        }
    }
    Ok(())
}
