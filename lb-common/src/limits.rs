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
/// Interface indices that can be served.
pub const MAX_INTERFACE_INDEX: u32 = 4096;
/// The least MTU that Linux believes of an IPv4 path (`net.ipv4.route.min_pmtu`).
pub const LEAST_MTU4: u16 = 552;
/// The least that an IPv6 link may have (RFC 8200, 5).
pub const LEAST_MTU6: u32 = 1280;
/// Room for reasons, so that a new one needs no new layout.
pub const MAX_REASONS: usize = 64;
/// Backend ids have 24 bits in a flow's record.
pub const MAX_BACKEND_ID: u32 = 1 << 24;
/// Reply tuples that are tried for a flow before one is taken away from a flow that is over or half-open. At three
/// quarters of a pool in TIME-WAIT 1 % of new flows find no free port among 16.
pub const PORT_PROBES: u32 = 16;
/// Bytes of the ring on which the program asks for neighbours.
pub const EVENT_RING_BYTES: usize = 16 * 1024;
/// Lines that a CPU may trace in a second: whoever asks for traces on a busy host must not bring it down.
pub const TRACES_PER_SECOND: u32 = 1000;
/// Bytes of the ring for traces: a line has at most 512, so that a CPU fills it in a quarter of a second.
pub const TRACE_RING_BYTES: u32 = 128 * 1024;
/// Bytes of that ring when there are none: the least that the kernel makes.
pub const IDLE_RING_BYTES: u32 = 4096;

/// The most flows of a family, by the hint's 24 bits.
pub const MAX_FLOWS: u32 = flow::MAX_RECORDS / flow::RECORDS_PER_FLOW;
