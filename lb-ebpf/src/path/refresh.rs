//! Slow path: a reply whose next hop was looked up before routes changed.

use lb_common::{
    cell::fence,
    flow::{Control, RecordIndex},
    hop::{ClientHop, Hop, HopStamp, InterfaceIndex},
    reason::Reason,
};

use crate::{
    family::{Family, Tuple},
    packet::{
        frame::Frame,
        rewrite::{self, Rewrite},
    },
    path::{
        client_hop::{self, Way},
        pipeline::Verdict,
        reply,
        request::Forward,
    },
    steps::Steps,
    storage::Storage,
    table::record::{Found, by_index},
};

/// Looks up the next hop of the reply in [`Storage::scratch`], and forwards it.
#[inline(always)]
pub fn run<F: Family>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    Verdict::leaving(frame.ingress(), forward(frame, tables))
}

#[inline(always)]
fn forward<F: Family>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Result<InterfaceIndex, Reason> {
    let forward = find(tables)?;
    let layout = tables.scratch().ok_or(Reason::Internal)?.layout.get();
    reply::count(tables, &layout, forward.backend, rewrite::apply(frame, &layout, &forward.rewrite))
}

/// The reply's new addresses and next hop.
#[inline(always)]
pub fn find<'a, F: Family>(tables: &'a impl Steps<F>) -> Result<Forward<'a, F>, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let hop = next_hop(tables, flow.record.get(), Control(flow.control.get()), &flow.rewritten.get())?;
    let backend = tables.backend(flow.backend.get()).ok_or(Reason::Internal)?;
    Ok(Forward { rewrite: Rewrite::reply(flow.rewritten.get(), flow.deltas.get(), hop), backend })
}

/// Looks up the next hop of a reply that leaves as `tuple`, and writes it into its flow's record. If the neighbour is not
/// resolved, the old hop is kept as long as the route leaves through the same interface.
///
/// The record may change owner meanwhile, because a CPU (for example of a virtual machine) can be preempted between two
/// instructions for any length of time. So the hop is one word that replaces only the flow's own hop (compare-exchange),
/// and its stamp identifies the owner: a late write cannot send the next owner's replies to this flow's client.
#[inline(always)]
pub fn next_hop<F: Family>(
    storage: &impl Storage<F>,
    index: RecordIndex,
    control: Control,
    tuple: &Tuple<F>,
) -> Result<Hop, Reason> {
    let generation = storage.settings().hop_generation;
    let Found { record, .. } = by_index(storage, index)?;
    let before = record.client_hop.load();
    fence();
    let owner_then = Control(record.control.load());
    let route = storage.route(tuple.source, tuple.destination)?;
    // Compared after the lookup, or the verifier would explore the lookup once for each result.
    let is_ours = control.is_still(owner_then);
    let known = if is_ours { ClientHop(before) } else { client_hop::NONE };
    let Way { hop, is_settled } = client_hop::resolve(storage, route, |_| known)?;
    if !is_settled {
        return Ok(hop);
    }
    let owner = control.generation();
    let after = ClientHop::new(hop.destination, hop.interface, owner).0;
    if is_ours && record.client_hop.replace(before, after) {
        // Last: a CPU that reads this stamp also reads the hop that belongs to it.
        record.hop_stamp.set(HopStamp::new(generation, owner));
        fence();
        if record.client_hop.load() != after {
            // Another CPU has written a hop too, and either may be outdated: the next reply looks it up again.
            record.hop_stamp.set(HopStamp::new(generation.wrapping_sub(1), owner));
        }
    }
    Ok(hop)
}
