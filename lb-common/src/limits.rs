//! The sizes of everything, each with its reason.

use crate::{
    flow,
    pool::{Pool, SlotLine},
};

/// The most services that may be configured.
pub const MAX_SERVICES: u32 = 16_384;
/// The most backends that may be configured, over all services.
pub const MAX_BACKENDS: u32 = 65_536;
/// The most places for backends. A multiple of the places of any [`Room`], so that ids can be compared modulo it.
pub const MAX_PLACES: u32 = Room { services: MAX_SERVICES, backends: MAX_BACKENDS }.places();
/// The most sets of sources, by the 16 bits of a pool's word.
pub const MAX_SOURCE_SETS: u32 = 1 << 16;
/// Source addresses of a service and family. A power of two: the program picks by mask.
pub const MAX_SOURCES: usize = 16;
/// Interface indices must be below this.
pub const MAX_INTERFACE_INDEX: u32 = 4096;
/// The smallest IPv4 path MTU that Linux accepts (`net.ipv4.route.min_pmtu`).
pub const LEAST_MTU4: u16 = 552;
/// The smallest MTU of an IPv6 link (RFC 8200, 5).
pub const LEAST_MTU6: u32 = 1280;
/// Space for reasons, so that a new one does not change the layout.
pub const MAX_REASONS: usize = 64;
/// Backend ids have 24 bits in a flow's record.
pub const MAX_BACKEND_ID: u32 = 1 << 24;
/// Reply tuples that are tried for a flow before one is taken from a flow that is over or half-open. With three quarters
/// of a port pool in TIME-WAIT, 1 % of new flows find no free port among 16.
pub const PORT_PROBES: u32 = 16;
/// Bytes of the ring buffer for requests to resolve neighbours.
pub const EVENT_RING_BYTES: usize = 16 * 1024;
/// Trace lines per CPU and second, so that traces cannot overload a busy host.
pub const TRACES_PER_SECOND: u32 = 1000;
/// Bytes of the trace ring buffer. A line has at most 512 bytes, so a CPU fills it in a quarter of a second.
pub const TRACE_RING_BYTES: u32 = 128 * 1024;
/// Bytes of that ring buffer without traces: the smallest size that the kernel accepts.
pub const IDLE_RING_BYTES: u32 = 4096;

/// Maximum number of flows per family, because a reply index entry has 24 bits for the record.
pub const MAX_FLOWS: u32 = flow::MAX_RECORDS / flow::RECORDS_PER_FLOW;

/// What the maps for services and backends are made for. Their sizes follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Services.
    pub services: u32,
    /// Backends, over all services.
    pub backends: u32,
}

impl Room {
    /// How many keys services may have: one per listen entry, and one marker per address and protocol.
    pub const fn service_keys(self) -> u32 {
        8 * self.services
    }

    /// Entries of the `SERVICES` map: twice the keys, because new keys are written before old ones are deleted.
    pub const fn service_entries(self) -> u32 {
        2 * self.service_keys()
    }

    /// Numbers for the counters of services, twice as many as services for the same reason.
    pub const fn service_numbers(self) -> u32 {
        2 * self.services
    }

    /// Two pools for each number of a service: one per family.
    pub const fn pools(self) -> u32 {
        2 * self.service_numbers()
    }

    /// Sets of sources: one for each pool, which includes those that were in force a moment ago, and number 0, which is no
    /// set.
    pub const fn source_sets(self) -> u32 {
        let sets = self.pools() + 1;
        if sets < MAX_SOURCE_SETS { sets } else { MAX_SOURCE_SETS }
    }

    /// Places for backends, a power of two: ids are reduced by a mask. Twice the backends, because one that loses its flows
    /// gets another id, and so a second place until the first one is free.
    pub const fn places(self) -> u32 {
        (2 * self.backends).next_power_of_two()
    }

    /// Former names that keep their counts.
    pub const fn past_names(self) -> u32 {
        if self.backends < 4096 { 4096 } else { self.backends }
    }

    /// How many slots are in use at most, with their ranges rounded up to powers of two: each backend has one slot in force,
    /// rounding at most doubles that, and a change of everything writes the new ranges before the old ones go.
    pub const fn slots_in_use(self) -> u32 {
        4 * self.backends.next_power_of_two()
    }

    /// How many slots there must be, so that a range is found for every pool whatever has happened before.
    ///
    /// A range has the size of a power of two, begins at a multiple of it, and lies as low as it can. Then no range of size
    /// 2^j lies above (j + 1) times [`Room::slots_in_use`]: below its place and above j times that, all ranges are as large
    /// as it or larger (by induction), so that the chunks that were not free for it are full, and there are not more of them
    /// than slots in use.
    pub const fn slots(self) -> u32 {
        self.slots_in_use() * (self.backends.next_power_of_two().ilog2() + 1)
    }

    /// The elements that they take in the map.
    pub const fn slot_lines(self) -> u32 {
        self.slots().div_ceil(SlotLine::SLOTS as u32)
    }
}

const _: () = assert!(Room { services: MAX_SERVICES, backends: MAX_BACKENDS }.slots() <= Pool::OFFSETS);
const _: () = assert!(MAX_BACKENDS < Pool::LENGTHS && MAX_PLACES <= MAX_BACKEND_ID);
