//! The reply tuple that a new flow tries to reserve. Each probe tries a different one: see [`crate::mode`].

use lb_common::{
    backend::{Backend, BackendId},
    cell::fence,
    flow::{Owner, RecordIndex},
    hop::InterfaceIndex,
    net::Ports,
    pool::{PoolSlot, SlotRange},
    reason::Reason,
    service::Mode,
};

use crate::{
    family::{Family, Tuple},
    mode,
    storage::{Maps, Storage},
    table::record::{Found, by_index},
    table::scratch::Scratch,
};

/// Writes the tuple of one probe into the new record and into [`Storage::scratch`], and the backend from there into the record.
/// [`crate::table::reply_index::reserve`] then checks whether the tuple is free.
#[inline(always)]
pub fn write<F: Family>(tables: &impl Storage<F>, record: RecordIndex, probe: u32) -> Result<(), Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let Found { record, .. } = by_index::<F>(tables, record)?;
    let mode = flow.schedule.get().mode().ok_or(Reason::Internal)?;
    let (tuple, id) = (flow.tuple.get(), flow.backend.get());
    let backend = with_id(tables, id)?;
    if flow.layout.get().length > backend.hop.mtu {
        return Err(if backend.hop.interface == InterfaceIndex::NONE {
            Reason::NoBackendNeighbour
        } else {
            Reason::TooBig
        });
    }
    let rewritten = rewritten(tables, mode, flow, backend, probe)?;
    flow.rewritten.set(rewritten);
    record.owner.set(Owner::new(id, mode, tuple.protocol as u8));
    record.backend.set(rewritten.destination);
    record.source.set(rewritten.source);
    record.reply_ports.set(rewritten.ports.reversed());
    fence();
    Ok(())
}

/// The tuple of the request after its rewrite, for this probe.
#[inline(always)]
pub fn rewritten<F: Family>(
    maps: &impl Maps,
    mode: Mode,
    flow: &Scratch<F>,
    backend: &Backend,
    probe: u32,
) -> Result<Tuple<F>, Reason> {
    let (source, port) = mode::source(maps, mode, flow, probe)?;
    Ok(Tuple {
        source,
        destination: F::from_key(backend.address),
        ports: Ports::new(port, backend.port),
        protocol: flow.tuple.get().protocol,
    })
}

/// The backend in a slot of a range, and its id.
#[inline(always)]
pub fn in_slot(maps: &impl Maps, slots: SlotRange, slot: PoolSlot) -> Result<(BackendId, &Backend), Reason> {
    // A free slot is not a pool's.
    let id = maps.slot(slots.at(slot)).filter(|id| *id != BackendId::NONE).ok_or(Reason::Internal)?;
    Ok((id, with_id(maps, id)?))
}

fn with_id(maps: &impl Maps, id: BackendId) -> Result<&Backend, Reason> {
    let backend = maps.backend(id).ok_or(Reason::Internal)?;
    if backend.id == id { Ok(backend) } else { Err(Reason::Contended) } // The controller is replacing the backend.
}
