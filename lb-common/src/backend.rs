//! Backends, as the program sees them.

use crate::{
    hop::Hop,
    net::{Address, Be16},
};

/// A real server. Lies at `id % places` of the `BACKENDS` array, and answers only for flows that name its id.
///
/// An id is given once: a backend that loses its flows (removed, in maint, a UDP backend that went down) loses its id.
///
/// The first cache line is what packets read, and the controller alone writes it. The second one is kept for what CPUs
/// will write (live flows, ejection), so that their writes do not slow the readers of the first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Counts up from 1, modulo 2^24; 0: nobody.
    pub id: u32,
    /// Number of its counters.
    pub counters: u32,
    /// Number of its service's counters.
    pub service_counters: u32,
    /// 1 while it is given new flows.
    pub accepts: u32,
    /// Where requests go.
    pub address: Address,
    /// The port that requests go to.
    pub port: Be16,
    /// Zero.
    pub zero: [u16; 3],
    /// How to get there. Its address lies in one word of 64 bits, which the controller writes as a whole.
    pub hop: Hop,
    /// Zero.
    pub rest: u32,
    /// Room for live flow counters and ejection state. Zero.
    pub live: [u64; 8],
}

crate::fields!(Backend { id, counters, service_counters, accepts, address, port, zero, hop, rest, live });

const _: () = assert!(core::mem::offset_of!(Backend, hop) % 8 == 0);

const _: () = assert!(core::mem::offset_of!(Backend, live) == 64);
const _: () = assert!(size_of::<Backend>() == 128);
