//! The first packet of a flow: may it have one?

use lb_common::{flow::State, hop::ClientHop, net::Protocol, reason::Reason, service::ServiceKey};

use crate::{
    family::Family,
    path::client_hop,
    steps::Steps,
    storage::Maps,
    table::record::{self, States},
    table::scratch::Scratch,
};

/// Finds the service of the packet. [`Reason::NotService`]: none listens there.
#[inline(always)]
pub fn service<F: Family>(maps: &impl Maps, flow: &Scratch<F>) -> Result<(), Reason> {
    let tuple = flow.tuple.get();
    let key = ServiceKey::new(F::to_key(tuple.destination), tuple.ports.destination(), tuple.protocol as u8);
    let service = maps.service(&key).ok_or(Reason::NotService)?;
    flow.pool.set(service.pool);
    flow.service_counters.set(service.counters);
    Ok(())
}

/// Decides whether the packet may open a flow, and looks up the way back to its client. `came_by`: see
/// [`client_hop::of_frame`].
#[inline(always)]
pub fn admit<F: Family>(tables: &impl Steps<F>, flow: &Scratch<F>, came_by: ClientHop) -> Result<(), Reason> {
    let settings = tables.settings().ok_or(Reason::Internal)?;
    let tuple = flow.tuple.get();
    // Looked at before anything is made for it; what is forwarded is looked at again (`rewrite::apply`).
    if flow.layout.get().hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    if tuple.protocol == Protocol::Tcp as u32 && flow.is_syn.get() == 0 {
        return Err(Reason::NoFlow);
    }
    // Beside a flow of its own tuple only if that one is closing. One that is not has been made since it was looked for.
    let closing = record::anywhere(tables, States::ESTABLISHED, None)?;
    if let Some(number) = closing
        && record::by_number::<F>(tables, number)?.control.state() == State::ESTABLISHED
    {
        return Err(Reason::Contended);
    }
    flow.set_closing(closing);
    flow.now.set(tables.now());
    // A flow is not made before its replies can find the way back. Last: the verifier follows what comes after it once
    // for each kind of route.
    client_hop::find(tables, settings, flow, came_by)
}
