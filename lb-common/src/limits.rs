//! The sizes of everything, each with its reason.

use crate::flow;

/// Ways that a service may be dialled: listen entries, and one marker per address and protocol.
pub const MAX_SERVICE_KEYS: u32 = 4096;
/// Services.
pub const MAX_SERVICES: u32 = 512;
/// Two pools a service: one per family.
pub const MAX_POOLS: u32 = 2 * MAX_SERVICES;
/// Slots of one pool. Round robin needs one per backend.
pub const MAX_POOL_SLOTS: u32 = 512;
/// Slots of all pools: see [`slots`].
pub const MAX_SLOTS: u32 = slots(MAX_BACKENDS);
/// Sets of sources: one in force per pool, as many again that were in force a moment ago, and number 0, which is no set.
pub const MAX_SOURCE_SETS: u32 = 2 * MAX_POOLS + 1;
/// Source addresses of a service and family. A power of two: the program picks by mask.
pub const MAX_SOURCES: usize = 16;
/// Backends at one time, over all services. A power of two: ids are reduced by mask.
pub const MAX_BACKENDS: u32 = 4096;
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

/// How many slots are in use at most, with their ranges rounded up to powers of two: each backend has one slot in force,
/// rounding at most doubles that, and a change of everything writes the new ranges before the old ones go.
pub const fn slots_in_use(backends: u32) -> u32 {
    4 * backends.next_power_of_two()
}

/// How many slots there must be, so that a range is found for every pool whatever has happened before.
///
/// A range has the size of a power of two, begins at a multiple of it, and lies as low as it can. Then no range of size
/// 2^j lies above (j + 1) times [`slots_in_use`]: below its place and above j times that, all ranges are as large as it or
/// larger (by induction), so that the chunks that were not free for it are full, and there are not more of them than
/// slots in use.
pub const fn slots(backends: u32) -> u32 {
    slots_in_use(backends) * (backends.next_power_of_two().ilog2() + 1)
}
