//! Slow path: a backend's segment of no known flow, while another node may know it. After a take-over, the first segment of a
//! flow may be the backend's: a client that only receives has nothing to send.
//!
//! In nat mode, the flow may be [computed]: the service follows from the backend, and the flow's backend from the tuple of its
//! requests. If that is not the sender, the segment is passed to the host, as are those of connections of the host itself.
//!
//! In full-nat mode, the host would answer a segment to a source with a RST, which would end the connection. So it is dropped
//! for as long as a client would not [be told](first_seen::may_be_told).

use lb_common::{
    backend::Backend,
    flow::Computed,
    hop::InterfaceIndex,
    net::{Be16, Ports, Protocol},
    quiet::Quiet,
    reason::Reason,
    service::{Filter, ServiceKey},
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
    storage::{Maps, may_match},
    table::first_seen,
    table::scratch::Scratch,
};

/// Is the flow of a backend's segment that has no record perhaps that of another node?
#[inline(always)]
pub fn may_be_known_elsewhere<F: Family>(maps: &impl Maps, reply: &Tuple<F>) -> bool {
    maps.settings().quiet != Quiet::No as u32
        || may_match(maps, F::fold(reply.source), reply.ports.source(), Filter::ORIGIN)
}

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
    let Some(flow) = tables.scratch() else { return Verdict::Refused(Reason::Internal) };
    let reply = flow.tuple.get();
    match turn_around(tables, flow, reply) {
        Ok(()) => Verdict::Continue(F::NEW_FLOW),
        Err(Reason::NotService) if is_withheld(tables, &reply) => Verdict::Refused(Reason::UnknownReply),
        Err(reason) => Verdict::Refused(reason),
    }
}

/// Must the host not see this segment? Its own connections have other ports than flows.
#[inline(always)]
fn is_withheld<F: Family>(tables: &impl Steps<F>, reply: &Tuple<F>) -> bool {
    let settings = tables.settings();
    if settings.quiet == Quiet::No as u32 || !settings.ports.contains(reply.ports.destination().get()) {
        return false;
    }
    // Port 0 marks a listen or source address.
    let ours = ServiceKey::new(F::to_key(reply.destination), Be16::new(0), Protocol::Tcp as u8);
    tables.service(&ours).is_some() && !first_seen::may_be_told(tables, reply)
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
fn turn_around<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, reply: Tuple<F>) -> Result<(), Reason> {
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
