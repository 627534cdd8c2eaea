//! Backends, as the program sees them.

use crate::{
    hop::Hop,
    net::{Address, Be16},
};

/// A backend (a real server, in LVS terms). It is the element `id % places` of the `BACKENDS` array, and is used only by
/// flows that have its id.
///
/// An id is assigned only once. A backend that loses its flows (removed, in maint, or a UDP backend that went down) loses
/// its id.
///
/// Packets read the first cache line, and only the controller writes to it. The second is reserved for values that CPUs
/// write (live flows, ejection), so that these writes do not slow down readers of the first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Counts up from 1, modulo 2^24. 0: no backend.
    pub id: u32,
    /// The number of its counters.
    pub counters: u32,
    /// The number of its service's counters.
    pub service_counters: u32,
    /// 1 while it gets new flows.
    pub accepts: u32,
    /// The address that requests are sent to.
    pub address: Address,
    /// The port that requests are sent to.
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
