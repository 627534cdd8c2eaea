//! Next hops and interfaces.

use crate::net::Mac;

/// Where a packet leaves, and to whom. All zeros while the next hop is not resolved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The next machine's Ethernet address.
    pub destination: Mac,
    /// The egress interface's own.
    pub source: Mac,
    /// The egress interface's index; 0 while the next hop is not resolved.
    pub interface: u32,
    /// The longest IP packet that fits; 0 while the next hop is not resolved.
    pub mtu: u32,
}

const _: () = assert!(size_of::<Hop>() == 20);

/// An interface that xlb is attached to. Its number in the map is the interface index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Zero.
    pub zero: u16,
    /// The longest IP packet that fits.
    pub mtu: u32,
    /// 1 if xlb sends through it.
    pub attached: u32,
}

const _: () = assert!(size_of::<Interface>() == 16);
