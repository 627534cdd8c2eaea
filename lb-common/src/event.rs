//! What the program asks of the controller.

use crate::net::Address;

/// A client's next hop has no neighbour entry: resolve it, its next packet will pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourWanted {
    /// The next hop.
    pub address: Address,
    /// The interface it is on.
    pub interface: u32,
    /// Zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<NeighbourWanted>() == 24);
