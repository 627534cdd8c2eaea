//! Slow path: a request that belongs to no known flow.

use lb_common::{
    hop::{ClientHop, InterfaceIndex},
    reason::Reason,
};

use crate::{
    family::Family,
    packet::{frame::Frame, rewrite},
    path::{
        classify, client_hop, expire,
        pipeline::Verdict,
        reject,
        request::{self, Forward},
        slow::SlowPaths,
    },
    steps::Steps,
    table::insert,
};

/// Creates the flow of the packet in [`Storage::scratch`](crate::storage::Storage::scratch), and forwards the packet.
#[inline(always)]
pub fn run<F: SlowPaths>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    let Some(flow) = tables.scratch() else { return Verdict::Refused(Reason::Internal) };
    flow.now.set(tables.now());
    if expire::is_due(flow) {
        return Verdict::Continue(F::EXPIRE);
    }
    match forward(frame, tables) {
        Ok(egress) => {
            tables.trace_new_flow();
            Verdict::leaving(frame.ingress(), Ok(egress))
        }
        Err(reason) => reject::refuse(tables, reason),
    }
}

#[inline(always)]
fn forward<F: Family>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Result<InterfaceIndex, Reason> {
    let sender = client_hop::of_frame(frame)?;
    let forward = make(tables, sender)?;
    let layout = tables.scratch().ok_or(Reason::Internal)?.layout.get();
    request::count(tables, &layout, forward.backend, rewrite::apply(frame, &layout, &forward.rewrite))
}

/// Creates the flow at [`Scratch::now`](crate::table::scratch::Scratch::now). `sender`: see [`client_hop::of_frame`].
#[inline(always)]
pub fn make<'a, F: Family>(tables: &'a impl Steps<F>, sender: ClientHop) -> Result<Forward<'a, F>, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    if let Err(reason) = classify::admit(tables, flow, sender).and_then(|()| insert::insert(tables, flow)) {
        tables.count_refused(flow.service_counters.get(), flow.layout.get().frame.into());
        return Err(reason);
    }
    let backend = tables.backend(flow.backend.get()).ok_or(Reason::Internal)?;
    Ok(Forward::request(backend, flow.rewritten.get(), flow.deltas.get()))
}
