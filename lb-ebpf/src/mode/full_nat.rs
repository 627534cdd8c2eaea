//! full-nat: the backend sees an address and port of xlb, and needs no configuration.

use lb_common::{limits::MAX_SOURCES, net::Be16, reason::Reason};

use super::Search;
use crate::{
    family::Family,
    storage::Maps,
    table::{hash::reduce, reply_index::Holders, scratch::Scratch},
};

/// Each probe tries another address and port.
pub const SEARCH: Search =
    Search { evict: Holders::EXPIRED, takes_another_backend: false, exhausted: Reason::PortsExhausted };

/// The keyed hash chooses the first one, so it is unpredictable and mostly free.
#[inline(always)]
pub fn source<F: Family>(
    maps: &impl Maps,
    flow: &Scratch<F>,
    probe: u32,
) -> Result<(F::Address, Be16), Reason> {
    let ports = maps.settings().own_ports;
    if ports.size() == 0 {
        return Err(Reason::PortsExhausted);
    }
    let hash = flow.hash.get();
    let sources = maps.sources(flow.schedule.get().sources()).ok_or(Reason::Internal)?;
    let address = sources.address[((hash >> 8) as u32).wrapping_add(probe) as usize & (MAX_SOURCES - 1)];
    let bits = (hash as u32).rotate_left(16) ^ probe.wrapping_mul(0x9e37_79b1);
    Ok((F::from_key(address), Be16::new(ports.port(reduce(bits, ports.size())))))
}
