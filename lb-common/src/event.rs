//! Events that the program sends to the controller.

use crate::{hop::ClientHop, net::Address};

/// Requests that a client's next hop without neighbour entry be resolved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourWanted {
    /// The next hop.
    pub address: Address,
    /// Its interface, and the MAC that the client's flow uses until it is resolved. Zero: packets are dropped until
    /// then.
    pub hop: ClientHop,
}

crate::fields!(NeighbourWanted { address, hop });

const _: () = assert!(size_of::<NeighbourWanted>() == 24);
