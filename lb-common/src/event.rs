//! Events that the program sends to the controller.

use crate::{hop::ClientHop, net::Address};

/// Asks the controller to resolve a client's next hop that has no neighbour entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourWanted {
    /// The next hop.
    pub address: Address,
    /// Its interface, and the MAC address that the client's flow uses until the next hop is resolved. Zero: packets are
    /// dropped until then.
    pub hop: ClientHop,
}

crate::fields!(NeighbourWanted { address, hop });

const _: () = assert!(size_of::<NeighbourWanted>() == 24);
