//! Slow path: a request that belongs to no known flow.

use lb_common::{
    flow::Computed,
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
        resume,
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
        Err(reason) if flow.going_on() == Some(Computed::FromBackend) => Verdict::Refused(reason),
        Err(reason) => reject::refuse(tables, reason),
    }
}

#[inline(always)]
fn forward<F: Family>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Result<InterfaceIndex, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let is_reply = flow.going_on() == Some(Computed::FromBackend);
    let sender = if is_reply { client_hop::NONE } else { client_hop::of_frame(frame)? };
    let forward = make(tables, sender)?;
    if is_reply {
        return resume::forward(frame, tables, flow, forward.backend);
    }
    let layout = flow.layout.get();
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
