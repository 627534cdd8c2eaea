//! The first packet of a flow: may it open one?

use lb_common::{
    flow::State,
    hop::ClientHop,
    net::Protocol,
    reason::Reason,
    service::{Service, ServiceKey},
};

use crate::{
    family::{Family, Tuple},
    path::{client_hop, computed},
    steps::Steps,
    storage::{Maps, Storage},
    table::record::{self, States},
    table::scratch::Scratch,
};

/// The service that listens where requests with this tuple go.
#[inline(always)]
pub fn listening<F: Family>(maps: &impl Maps, request: &Tuple<F>) -> Option<Service> {
    let (address, port) = (F::to_key(request.destination), request.ports.destination());
    maps.service(&ServiceKey::new(address, port, request.protocol as u8))
}

/// Finds the service of the packet. [`Scratch::pool`] is [`Service::NO_POOL`] if no service listens there.
#[inline(always)]
pub fn service<F: Family>(maps: &impl Maps, flow: &Scratch<F>) {
    // Port 0 marks a listen or source address of a service. It is not a service itself.
    let service = listening::<F>(maps, &flow.tuple.get())
        .unwrap_or(Service { pool: Service::NO_POOL, ..Service::default() });
    flow.pool.set(service.pool);
    flow.service_counters.set(service.counters);
    flow.reject.set(service.reject);
    flow.computed.set(service.computed);
}

/// Does a service listen where the packet in [`Storage::scratch`] goes?
#[inline(always)]
pub fn has_service<F: Family>(tables: &impl Storage<F>) -> Result<bool, Reason> {
    Ok(tables.scratch().ok_or(Reason::Internal)?.pool.get() != Service::NO_POOL)
}

/// Decides whether the packet may open a flow, and looks up the next hop to its client. `sender`: see
/// [`client_hop::of_frame`].
#[inline(always)]
pub fn admit<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, sender: ClientHop) -> Result<(), Reason> {
    let settings = tables.settings();
    let tuple = flow.tuple.get();
    // Checked before a flow is created; `rewrite::apply` checks every forwarded packet.
    if flow.layout.get().hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    if tuple.protocol == Protocol::Tcp as u32 && flow.is_syn.get() == 0 {
        computed::admit(tables, flow)?;
    }
    // A flow with the same tuple may exist only if it is closing. One that is not was created since the lookup missed. If
    // the fast path found no record, there is no closing flow, and `insert` finds what was created since.
    let closing = match flow.has_record.get() {
        0 => None,
        _ => record::anywhere(tables, States::ESTABLISHED, None)?,
    };
    if let Some(index) = closing
        && (flow.going_on().is_some()
            || record::by_index::<F>(tables, index)?.control.state() == State::ESTABLISHED)
    {
        return Err(Reason::Contended);
    }
    flow.set_closing(closing);
    // A flow is created only if replies can reach the client. Last, because the verifier explores what follows once for
    // each kind of route.
    client_hop::find(tables, settings, flow, sender)
}
