//! Slow path: a backend's segment of no known flow, while another node may know it. After a take-over, the first segment of a
//! flow may be the backend's: a client that only receives has nothing to send.
//!
//! The service follows from the backend, and the flow's backend from the tuple of its requests. If that is not the sender, the
//! segment is passed to the host, as are those of connections of the host itself.

use lb_common::{
    backend::Backend,
    flow::Computed,
    hop::InterfaceIndex,
    net::{Ports, Protocol},
    reason::Reason,
    service::ServiceKey,
};

use crate::{
    family::{Family, Tuple},
    packet::{
        frame::Frame,
        parse::Packet,
        rewrite::{self, Rewrite},
    },
    path::{
        classify, computed,
        pipeline::Verdict,
        reply,
        slow::{SlowPath, SlowPaths},
    },
    steps::Steps,
    table::scratch::Scratch,
};

/// Writes the input of this path.
#[inline(always)]
pub fn prepare<F: SlowPaths>(tables: &impl Steps<F>, packet: &Packet<F>) -> Result<SlowPath, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    flow.tuple.set(packet.tuple);
    flow.layout.set(packet.layout);
    Ok(F::RESUME)
}

/// Finds the flow of the reply in [`Storage::scratch`](crate::storage::Storage::scratch). [`super::new_flow`] creates it, and
/// forwards the reply.
#[inline(always)]
pub fn run<F: SlowPaths>(_frame: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    match turn_around(tables) {
        Ok(()) => Verdict::Continue(F::NEW_FLOW),
        Err(reason) => Verdict::Refused(reason),
    }
}

/// Forwards the reply with which a flow was created.
#[inline(always)]
pub fn forward<F: Family>(
    frame: &mut impl Frame,
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    backend: &Backend,
) -> Result<InterfaceIndex, Reason> {
    let layout = flow.layout.get();
    let rewrite = Rewrite::reply(flow.tuple.get().reversed(), flow.deltas.get(), flow.client_hop.get());
    reply::count(tables, &layout, backend, rewrite::apply(frame, &layout, &rewrite))
}

/// Replaces the tuple of the reply by that of its flow's requests, if the flow's backend is the sender.
#[inline(always)]
fn turn_around<F: Family>(tables: &impl Steps<F>) -> Result<(), Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let reply = flow.tuple.get();
    let sender = ServiceKey::new(F::to_key(reply.source), reply.ports.source(), Protocol::Tcp as u8);
    let listen = tables.origin(&sender).ok_or(Reason::NotService)?;
    let request = Tuple {
        source: reply.destination,
        destination: F::from_key(listen.address),
        ports: Ports::new(reply.ports.destination(), listen.port),
        protocol: reply.protocol,
    };
    flow.tuple.set(request);
    flow.hash.set(F::hash(&tables.settings().keys, &request));
    flow.is_syn.set(0);
    flow.set_going_on(Some(Computed::FromBackend));
    flow.has_record.set(1);
    classify::service(tables, flow);
    let backend = computed::backend_of(tables, flow).ok_or(Reason::NotService)?;
    if F::from_key(backend.address) != reply.source || backend.port != reply.ports.source() {
        return Err(Reason::NotService);
    }
    // A segment for the host itself leaves through no interface.
    match tables.route(request.destination, request.source) {
        Err(Reason::NoClientRoute) => Err(Reason::NotService),
        Ok(_) | Err(_) => Ok(()),
    }
}
