//! The reply tuple that a newcomer asks for.
//!
//! Every probe is another one: full-nat tries ports of ours, nat (where the client keeps its port) tries backends.

use lb_common::{
    backend::Backend,
    cell::fence,
    flow::Owner,
    limits::{MAX_SLOTS, MAX_SOURCES},
    net::{Be16, Ports},
    reason::Reason,
    service::{Mode, SlotTable},
};

use crate::{
    family::{Family, Tuple},
    storage::{Maps, Storage},
    table::hash::reduce,
    table::record::{Found, by_number},
};

/// Writes the tuple of one probe, and its backend, into the record that is being filled and into
/// [`Storage::scratch`]. Whether it is free is for [`crate::table::reply_index::reserve`] to say.
#[inline(always)]
pub fn write<F: Family>(tables: &impl Storage<F>, number: u32, turn: u64, probe: u32) -> Result<(), Reason> {
    let settings = tables.settings().ok_or(Reason::Internal)?;
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let slots = tables.slots(flow.pool.get()).ok_or(Reason::Internal)?;
    let Found { record, .. } = by_number::<F>(tables, number)?;
    let nat = slots.mode == Mode::Nat as u32;
    let tuple = flow.tuple.get();
    let turn = turn.wrapping_add(if nat { u64::from(probe) } else { 0 });
    let (mut id, mut backend) = chosen(tables, slots, turn)?;
    // nat keeps the client's address, and nobody is sent what comes from himself.
    if nat && F::from_key(backend.address) == tuple.source {
        (id, backend) = chosen(tables, slots, turn.wrapping_add(1))?;
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
        let picked = slots.source[((hash >> 8) as u32).wrapping_add(probe) as usize & (MAX_SOURCES - 1)];
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

/// Whose turn it is, and his id. Not on the fast path: one division per flow keeps round robin exact for any number
/// of backends.
#[inline(always)]
fn chosen<'a>(maps: &'a impl Maps, slots: &SlotTable, turn: u64) -> Result<(u32, &'a Backend), Reason> {
    let slot = turn % u64::from(slots.slots).max(1);
    let id = slots.backend[slot as usize & (MAX_SLOTS - 1)];
    let backend = maps.backend(id).ok_or(Reason::Internal)?;
    if backend.id != id {
        return Err(Reason::Contended); // The controller is between two steps.
    }
    Ok((id, backend))
}
