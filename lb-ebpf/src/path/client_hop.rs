//! The next hop towards a client.
//!
//! The host's routes decide. But XDP sees a client before the host does, and a client on the link that the host has not
//! met has no neighbour entry. Its flow then uses the MAC that its frame came from, and the daemon is asked to resolve the
//! neighbour. If that has another MAC, the daemon raises the routing generation, and flows look it up again.
//!
//! A forged MAC misdirects only the replies of the forger's own flow, to one station of its own link: the client's
//! address must be on the link of the interface that received the frame, without a gateway. It says nothing for other
//! flows of that address, and a group address is not taken.

use lb_common::{
    cell::fence,
    event::NeighbourWanted,
    hop::{ClientHop, Hop},
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

/// No hop: its interface is none.
pub const NONE: ClientHop = ClientHop(0);

/// A next hop, and whether it need not be looked up again in this routing generation.
pub struct Way {
    /// Where packets to the client go.
    pub hop: Hop,
    /// False: the MAC is assumed, and the daemon does not know that.
    pub is_settled: bool,
}

/// The interface that received a frame, and the MAC that it came from.
#[inline(always)]
pub fn of_frame(frame: &mut impl Frame) -> Result<ClientHop, Reason> {
    let ingress = frame.ingress();
    let sender = frame.cursor().take::<Ethernet>()?.source();
    Ok(ClientHop::new(sender, ingress, 0))
}

/// Finds the next hop for a flow that is made, and writes it and its routing generation there.
#[inline(always)]
pub fn find<F: Family>(
    tables: &impl Storage<F>,
    settings: &Settings,
    flow: &Scratch<F>,
    came_by: ClientHop,
) -> Result<(), Reason> {
    // The routes' generation is read before the route: one that changes in between is then of an older generation, and
    // is looked up again.
    let generation = settings.hop_generation;
    fence();
    let tuple = flow.tuple.get();
    let route = tables.route(tuple.destination, tuple.source)?;
    let is_client = |next_hop| next_hop == F::to_key(tuple.source);
    let way = resolve(tables, route, |next_hop| if is_client(next_hop) { came_by } else { NONE })?;
    flow.client_hop.set(way.hop);
    flow.hop_generation.set(if way.is_settled { generation } else { generation.wrapping_sub(1) });
    Ok(())
}

/// The next hop of a route. Where that is not resolved: what is `assumed` of it, if it leaves by the same interface.
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
            let ask = |mac| {
                let hop = ClientHop::new(mac, hop.interface, 0);
                maps.ask(NeighbourWanted { address: next_hop, hop })
            };
            if known.interface() != hop.interface || !known.mac().is_unicast() {
                ask(Mac::default());
                return Err(Reason::NoClientNeighbour);
            }
            let destination = known.mac();
            Ok(Way { is_settled: ask(destination), hop: Hop { destination, ..hop } })
        }
    }
}
