//! Backend to client: a known flow, or nothing of ours.

use lb_common::{
    cell::fence,
    flow::{Control, State},
    hop::Hop,
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, Tuple},
    find::{self, Found, by_number},
    hints, life,
    new_flow::NewFlow,
    request::Forward,
    rewrite::Rewrite,
    tables::{FlowTables, Tables},
    tcp::{Segment, Side},
};

/// A packet of a known flow. `None`: there is no such flow.
#[inline(always)]
pub fn forward<'a, F: Family, T: Tables + FlowTables<F>>(
    tables: &'a T,
    settings: &Settings,
    tuple: &Tuple<F>,
    segment: Segment,
) -> Result<Option<Forward<'a, F>>, Reason> {
    let hash = F::hash(&settings.keys, tuple);
    let Some(found) = hints::reply(tables, tuple, hash, F::shape(settings)) else { return Ok(None) };
    let copied = found.read(|it| {
        let hop_generation = it.hop_generation.get();
        // `refresh` writes the hop and then its generation: whoever reads them the other way round gets no older hop.
        fence();
        let hop = (it.client_mac.get(), u32::from(it.client_interface.get()));
        let rewritten = find::request_of::<F>(it).reversed();
        (it.owner.get(), rewritten, it.deltas.get(), it.last_seen.get(), hop_generation, hop)
    });
    let Some((owner, rewritten, deltas, seen, hop_generation, (mac, interface))) = copied else {
        return Ok(None);
    };
    let Found { number, control, .. } = found;
    let Some(backend) = tables.backend(owner.backend()) else { return Ok(None) };
    if backend.id != owner.backend() || !life::is_in_time(&found, owner.protocol(), seen, tables.now()) {
        return Ok(None);
    }
    if control.state() != State::ESTABLISHED || segment.is_goodbye() {
        FlowTables::<F>::advance(tables, number, control.0, Side::Backend, segment);
    }
    let hop = if hop_generation == settings.hop_generation {
        let egress = tables.interface(interface).ok_or(Reason::NoClientRoute)?;
        Hop { destination: mac, source: egress.mac, interface, mtu: egress.mtu }
    } else {
        let flow: &NewFlow<F> = tables.new_flow().ok_or(Reason::NoClientRoute)?;
        flow.tuple.set(rewritten);
        FlowTables::<F>::refresh(tables, number, control.0)?;
        flow.client_hop.get()
    };
    Ok(Some(Forward { rewrite: Rewrite::reply(rewritten, deltas, hop), backend }))
}

/// Looks up the next hop for the tuple in [`FlowTables::new_flow`], and writes it there and into the record, which may
/// change hands meanwhile.
#[inline(always)]
pub fn refresh<F: Family, T: Tables + FlowTables<F>>(
    tables: &T,
    number: u32,
    control: Control,
) -> Result<(), Reason> {
    let settings = tables.settings().ok_or(Reason::NoClientRoute)?;
    let generation = settings.hop_generation;
    let flow: &NewFlow<F> = tables.new_flow().ok_or(Reason::NoClientRoute)?;
    let hop = FlowTables::<F>::route(tables, flow.tuple.get().source, flow.tuple.get().destination)?;
    flow.client_hop.set(hop);
    let Found { record, control: found, .. } = by_number::<F>(tables, number).ok_or(Reason::Contended)?;
    if !control.is_still(found) {
        return Ok(());
    }
    record.client_mac.set(hop.destination);
    record.client_interface.set(hop.interface as u16);
    fence();
    // Last: whoever sees this generation sees the hop that belongs to it.
    record.hop_generation.set(generation);
    fence();
    if !control.is_still(Control(record.control.load())) {
        // Written over the next owner's: it looks up its own. Who fills a record writes the generation first.
        record.hop_generation.set(generation.wrapping_sub(1));
    }
    Ok(())
}
