//! Constants and types shared by the race program and its test.

use lb_common::{
    backend::BackendId,
    net::{Mac, V4, V6},
};

/// Flows that are generated. A power of two.
pub const FLOWS: u32 = 64;
/// Clients: flows of one client differ in the address that they connect to. A power of two.
pub const CLIENTS: u32 = 16;
/// Pools: each service address has one.
pub const POOLS: u32 = FLOWS / CLIENTS;
/// Backends of each pool. Those of all pools have the same addresses.
pub const BACKENDS: u32 = 2;
/// How many of them may be ejected at the same time.
pub const MOST_EJECTED: u16 = 1;
/// The port that clients connect to.
pub const SERVICE_PORT: u16 = 80;
/// Source addresses of full-nat.
pub const SOURCES: u32 = 4;

/// One client's address, as a number for [`v4`] and [`v6`].
pub const CLIENT: u32 = 0x1000;
/// Service addresses: 0 and 1 use full-nat, 2 and 3 use nat, where two flows of one client port have the same reply
/// tuple.
pub const LISTEN: u32 = 0x2000;

/// Full-nat's source addresses.
pub const SOURCE: u32 = 0x3000;

/// A backend of a pool.
pub const fn backend(pool: u32, number: u32) -> BackendId {
    BackendId(1 + pool * BACKENDS + number)
}

/// `10.0.0.0/16` by number.
pub const fn v4(number: u32) -> V4 {
    V4::from_bytes([10, 0, (number >> 8) as u8, number as u8])
}

/// `fd00::/16` by number. Both words depend on the number, so that a mix of two addresses equals neither.
pub const fn v6(number: u32) -> V6 {
    let [a, b] = [(number >> 8) as u8, number as u8];
    V6::from_bytes([0xfd, 0, 0, 0, 0, 0, a, b, 0, 0, 0, 0, 0, 0, a, b])
}

/// The client's own Ethernet address.
pub const fn mac(client: u32) -> Mac {
    Mac::new([2, 0, 0, 0, (client >> 8) as u8, client as u8])
}

/// What one CPU has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Findings {
    /// Requests that were forwarded.
    pub requests: u64,
    /// Replies that were forwarded.
    pub replies: u64,
    /// Packets of either direction that were not forwarded.
    pub refused: u64,
    /// Packets dropped as `contended`.
    pub contended: u64,
    /// Refusals that were hidden from their clients.
    pub retried: u64,
    /// Requests dropped as `backends_full`.
    pub full: u64,
    /// Instants at which a backend was ejected.
    pub ejected: u64,
    /// Requests that were rewritten with another flow's fields.
    pub mixed_requests: u64,
    /// Replies that were rewritten with another flow's fields.
    pub mixed_replies: u64,
    /// Instants at which two records answered for one reply.
    pub replies_of_two: u64,
    /// Instants at which two records answered for one request.
    pub requests_of_two: u64,
    /// Instants at which the number of a backend's flows was negative.
    pub negative_loads: u64,
    /// Instants at which the number of half-open flows was further below zero than CPUs may keep back.
    pub negative_half_open: u64,
    /// Instants at which too many backends of a pool were ejected.
    pub too_many_ejected: u64,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, words only.
unsafe impl aya::Pod for Findings {}
