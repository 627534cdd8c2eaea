//! What the program asks of the controller.

use crate::{hop::ClientHop, net::Address};

/// A client's next hop has no neighbour entry: resolve it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourWanted {
    /// The next hop.
    pub address: Address,
    /// The interface it is on, and the MAC that the client's flow uses until it is resolved. Zero: its packets are
    /// dropped.
    pub hop: ClientHop,
}

const _: () = assert!(size_of::<NeighbourWanted>() == 24);
