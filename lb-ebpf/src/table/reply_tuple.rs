//! The reply tuple that a newcomer asks for.
//!
//! Every probe is another one: full-nat tries ports of ours, nat (where the client keeps its port) tries the slots that
//! follow the one that was picked.

use lb_common::{
    backend::Backend,
    cell::fence,
    flow::Owner,
    limits::MAX_SOURCES,
    net::{Be16, Ports},
    pool::SlotRange,
    reason::Reason,
    service::Mode,
};

use crate::{
    family::{Family, Tuple},
    picker,
    storage::{Maps, Storage},
    table::hash::reduce,
    table::record::{Found, by_number},
};

/// Writes the tuple of one probe, and the backend of its slot, into the record that is being filled and into
/// [`Storage::scratch`]. Whether it is free is for [`crate::table::reply_index::reserve`] to say.
#[inline(always)]
pub fn write<F: Family>(tables: &impl Storage<F>, number: u32, slot: u32, probe: u32) -> Result<(), Reason> {
    let settings = tables.settings().ok_or(Reason::Internal)?;
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let pool = flow.schedule.get();
    let slots = pool.slots();
    let Found { record, .. } = by_number::<F>(tables, number)?;
    let nat = pool.mode() == Some(Mode::Nat);
    let tuple = flow.tuple.get();
    let (mut id, mut backend) = in_slot(tables, slots, slot)?;
    // nat keeps the client's address, and nobody is sent what comes from himself.
    if nat && F::from_key(backend.address) == tuple.source {
        (id, backend) = in_slot(tables, slots, picker::next(pool, slot))?;
        if F::from_key(backend.address) == tuple.source {
            return Err(Reason::TupleInUse);
        }
    }
    if flow.layout.get().length > backend.hop.mtu {
        return Err(if backend.hop.interface == 0 { Reason::NoBackendNeighbour } else { Reason::TooBig });
    }
    let (source, port) = if nat {
        (tuple.source, tuple.ports.source())
    } else {
        if settings.ports.size() == 0 {
            return Err(Reason::PortsExhausted);
        }
        // The keyed hash says where to begin: nobody can foresee the port, and most find theirs at once.
        let hash = flow.hash.get();
        let sources = tables.sources(pool.sources()).ok_or(Reason::Internal)?;
        let picked = sources.address[((hash >> 8) as u32).wrapping_add(probe) as usize & (MAX_SOURCES - 1)];
        let bits = (hash as u32).rotate_left(16) ^ probe.wrapping_mul(0x9e37_79b1);
        (F::from_key(picked), Be16::new(settings.ports.port(reduce(bits, settings.ports.size()))))
    };
    let rewritten = Tuple::<F> {
        source,
        destination: F::from_key(backend.address),
        ports: Ports::new(port, backend.port),
        protocol: tuple.protocol,
    };
    flow.backend.set(id);
    flow.rewritten.set(rewritten);
    record.owner.set(Owner::new(id, tuple.protocol as u8));
    record.backend.set(rewritten.destination);
    record.source.set(rewritten.source);
    record.reply_ports.set(rewritten.ports.reversed());
    fence();
    Ok(())
}

/// The backend in a slot of a range, and its id.
#[inline(always)]
fn in_slot(maps: &impl Maps, slots: SlotRange, slot: u32) -> Result<(u32, &Backend), Reason> {
    let id = maps.slot(slots.offset + slot).ok_or(Reason::Internal)?;
    let backend = maps.backend(id).ok_or(Reason::Internal)?;
    if backend.id != id {
        return Err(Reason::Contended); // The controller is between two steps.
    }
    Ok((id, backend))
}
