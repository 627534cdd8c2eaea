//! The sizes of everything, each with its reason.

use crate::flow;

/// Ways that a service may be dialled: listen entries, and one marker per address and protocol.
pub const MAX_SERVICE_KEYS: u32 = 4096;
/// Services.
pub const MAX_SERVICES: u32 = 512;
/// Two pools a service: one per family.
pub const MAX_POOLS: u32 = 2 * MAX_SERVICES;
/// Slot tables: one in force per pool, and as many again that were in force a moment ago.
pub const MAX_TABLES: u32 = 2 * MAX_POOLS;
/// Slots of a table. Round robin needs one per backend.
pub const MAX_SLOTS: usize = 512;
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
