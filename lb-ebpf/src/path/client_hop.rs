//! The next hop towards a client.
//!
//! The host's routes decide. XDP handles a client's packets before the host's stack does, so an on-link client may have
//! no neighbour entry yet. Its flow then uses the source MAC of its frame, and the daemon is asked to resolve the
//! neighbour. If the result is another MAC, the daemon raises the routing generation, and flows look up the hop again.
//!
//! A forged MAC misdirects only the replies of the forger's own flow, to one station on the forger's own link: the
//! client's address must be on the link of the interface that received the frame, without a gateway. Other flows of that
//! address are not affected, and group addresses are not accepted.

use lb_common::{
    cell::fence,
    event::NeighbourWanted,
    hop::{ClientHop, Hop},
    limits::MAX_INTERFACE_INDEX,
    net::{Address, Mac},
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::Family,
    packet::{frame::Frame, headers::Ethernet},
    storage::{Maps, Route, Storage},
    table::scratch::Scratch,
};

/// No hop: no interface has index 0.
pub const NONE: ClientHop = ClientHop(0);

/// A next hop, and whether it is valid for the whole routing generation.
pub struct Way {
    /// Where packets to the client go.
    pub hop: Hop,
    /// False: the MAC is assumed and the ring buffer was full, so the daemon was not asked. The next reply looks the
    /// hop up again.
    pub is_settled: bool,
}

/// The interface that received a frame, and the frame's source MAC. [`NONE`] if the index is too large to be stored:
/// xlb is not attached to such an interface, but it may be a port of a bond to which xlb is attached.
#[inline(always)]
pub fn of_frame(frame: &mut impl Frame) -> Result<ClientHop, Reason> {
    let ingress = frame.ingress();
    let sender = frame.cursor().take::<Ethernet>()?.source();
    if ingress.0 >= MAX_INTERFACE_INDEX {
        return Ok(NONE);
    }
    Ok(ClientHop::new(sender, ingress, 0))
}

/// Finds the next hop for a new flow, and stores it and its routing generation in `flow`.
#[inline(always)]
pub fn find<F: Family>(
    tables: &impl Storage<F>,
    settings: &Settings,
    flow: &Scratch<F>,
    sender: ClientHop,
) -> Result<(), Reason> {
    // The generation is read before the route: if the route changes in between, the hop has the older generation, and is
    // looked up again.
    let generation = settings.hop_generation;
    fence();
    let tuple = flow.tuple.get();
    let route = tables.route(tuple.destination, tuple.source)?;
    let is_client = |next_hop| next_hop == F::to_key(tuple.source);
    let way = resolve(tables, route, |next_hop| if is_client(next_hop) { sender } else { NONE })?;
    flow.client_hop.set(way.hop);
    flow.hop_generation.set(if way.is_settled { generation } else { generation.wrapping_sub(1) });
    Ok(())
}

/// The next hop of a route. If it is not resolved: the `assumed` one, if the route leaves through the same interface.
#[inline(always)]
pub fn resolve(
    maps: &impl Maps,
    route: Route,
    assumed: impl FnOnce(Address) -> ClientHop,
) -> Result<Way, Reason> {
    match route {
        Route::Resolved(hop) => Ok(Way { hop, is_settled: true }),
        Route::Unresolved { hop, next_hop } => {
            let known = assumed(next_hop);
            let request = |mac| {
                let hop = ClientHop::new(mac, hop.interface, 0);
                maps.request_neighbour(NeighbourWanted { address: next_hop, hop })
            };
            if known.interface() != hop.interface || !known.mac().is_unicast() {
                request(Mac::default());
                return Err(Reason::NoClientNeighbour);
            }
            let destination = known.mac();
            Ok(Way { is_settled: request(destination), hop: Hop { destination, ..hop } })
        }
    }
}
