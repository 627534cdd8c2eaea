//! Limits and map sizes, with the reason for each.

use crate::{
    flow,
    pool::{Pool, SlotLine},
};

/// Maximum number of configured services.
pub const MAX_SERVICES: u32 = 16_384;
/// Maximum number of configured backends, over all services.
pub const MAX_BACKENDS: u32 = 65_536;
/// Minimum number of slots in force: enough for any pool of 1,024 backends with equal weights.
pub const MIN_SLOTS: u32 = 1024;
/// Maximum number of slots in force. `SLOTS` has three times as many elements, and a pool's word has 24 bits for one.
pub const MAX_SLOTS: u32 = 5_000_000;
/// The number of slots in force unless the file sets another: 15 tables for Maglev, and many small schedules.
pub const DEFAULT_SLOTS: u32 = 1_048_576;
/// Maximum number of elements of `BACKENDS`. A multiple of [`Room::places`] for every possible room, so that ids can be
/// compared modulo this number.
pub const MAX_PLACES: u32 =
    Room { services: MAX_SERVICES, backends: MAX_BACKENDS, slots: MAX_SLOTS }.places();
/// Maximum number of sets of sources: a pool's word has 16 bits for the number.
pub const MAX_SOURCE_SETS: u32 = 1 << 16;
/// Maximum number of source addresses per service and family. A power of two, because the program selects one with a mask.
pub const MAX_SOURCES: usize = 16;
/// Interface indices must be below this.
pub const MAX_INTERFACE_INDEX: u32 = 4096;
/// The smallest IPv4 path MTU that Linux accepts (`net.ipv4.route.min_pmtu`).
pub const LEAST_MTU4: u16 = 552;
/// The smallest MTU of an IPv6 link (RFC 8200, 5).
pub const LEAST_MTU6: u32 = 1280;
/// Maximum number of reasons, with some to spare, so that another reason does not change the layout.
pub const MAX_REASONS: usize = 64;
/// Backend ids are below this: a flow's record has 24 bits for them.
pub const BACKEND_IDS: u32 = 1 << 24;
/// Number of reply tuples tried for a flow before one is taken from a flow that has ended or is half-open. With three
/// quarters of a port pool in TIME-WAIT, 1 % of new flows find no free port among 16.
pub const PORT_PROBES: u32 = 16;
/// How often a client that is refused gets another backend. After that, it receives the refusal.
pub const MAX_RETRIES: u32 = 2;
/// Slots that are tried for a new flow, before the [members](crate::pool::Members) of its pool.
pub const SLOT_TRIES: u32 = 16;
/// Members of a pool that are tried after that. With their number, they fill four cache lines.
pub const MAX_MEMBERS: usize = 63;
/// Maximum number of answers to refused packets in a second, over all CPUs: a victim whose address is forged gets no more.
/// Linux's `net.ipv4.icmp_msgs_per_sec` has the same default.
pub const ANSWERS_PER_SECOND: u32 = 1000;
/// How many bytes of answers may be sent beyond the bytes of the packets that they answer: enough for 85 of the
/// smallest datagrams, which do not pay for their ICMP error.
pub const ANSWER_DEBT_BYTES: u32 = 4096;
/// Slots that are compared for a new flow with least connections. Each costs time, and the verifier 100 instructions.
pub const LEAST_SLOTS: u32 = 64;
/// Size of the ring buffer for neighbour requests, in bytes.
pub const EVENT_RING_BYTES: usize = 16 * 1024;
/// Size of the ring buffer for events of flows that are shared, in bytes. An event takes 16, so it holds those of a second with
/// 30,000 new flows.
pub const FLOW_EVENT_RING_BYTES: u32 = 1024 * 1024;
/// Trace lines per CPU and second, so that traces cannot overload a busy host.
pub const TRACES_PER_SECOND: u32 = 1000;
/// Size of the trace ring buffer, in bytes. A line has at most 512 bytes, so one CPU fills it in a quarter of a second.
pub const TRACE_RING_BYTES: u32 = 128 * 1024;
/// Size of a ring buffer that is not used: the smallest that the kernel accepts.
pub const IDLE_RING_BYTES: u32 = 4096;

/// Maximum number of flows per family, because a reply index entry has 24 bits for the record.
pub const MAX_FLOWS: u32 = flow::MAX_RECORDS / flow::RECORDS_PER_FLOW;

/// The capacity for services, backends and slots that the maps are created with. The sizes of the maps follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Services.
    pub services: u32,
    /// Backends, over all services.
    pub backends: u32,
    /// Slots of all schedules in force. Each range counts in whole lines.
    pub slots: u32,
}

impl Room {
    /// The sizes of the maps in the object. Tests and benchmarks use them; xlb always sets its own.
    pub const OBJECT: Self = Self { services: 512, backends: 2048, slots: 131_072 };

    /// Maximum number of keys of services: one per listen entry, and one marker per address and protocol.
    pub const fn service_keys(self) -> u32 {
        8 * self.services
    }

    /// Entries of the `SERVICES` map: twice the keys, because new keys are written before old ones are deleted.
    pub const fn service_entries(self) -> u32 {
        2 * self.service_keys()
    }

    /// Numbers for the counters of services: twice the services, for the same reason.
    pub const fn service_numbers(self) -> u32 {
        2 * self.services
    }

    /// Four pools for each service number: one per family, and one per family in which backends of flows are computed.
    pub const fn pools(self) -> u32 {
        4 * self.service_numbers()
    }

    /// Sets of sources: one for each family of a service number, which leaves room for sets in their grace period, and number 0,
    /// which is no set.
    pub const fn source_sets(self) -> u32 {
        let sets = 2 * self.service_numbers() + 1;
        if sets < MAX_SOURCE_SETS { sets } else { MAX_SOURCE_SETS }
    }

    /// Elements of `BACKENDS`: a power of two, because ids are reduced with a mask. Twice the backends, because a backend
    /// that loses its flows gets another id, and so a second element until the first one is free.
    pub const fn places(self) -> u32 {
        (2 * self.backends).next_power_of_two()
    }

    /// Number of names whose former counts are kept: at least one for each name that can be in use.
    pub const fn past_names(self) -> u32 {
        let names = self.services + self.backends;
        if names < 4096 { 4096 } else { names }
    }

    /// The slots of each half of `SLOTS`: half as many again as may be in force, in whole lines. See [`Room::slot_lines`].
    pub const fn half_slots(self) -> u32 {
        (self.slots + self.slots / 2).next_multiple_of(SlotLine::SLOTS as u32)
    }

    /// The number of elements of `SLOTS`. It has two halves, and all ranges in force are in one of them. If there is no gap in
    /// it for another range, all ranges move to the other half, which is free then.
    pub const fn slot_lines(self) -> u32 {
        2 * self.half_slots() / SlotLine::SLOTS as u32
    }
}

const _: () = assert!(MAX_SLOTS + MAX_SLOTS / 2 + SlotLine::SLOTS as u32 <= Pool::OFFSETS / 2);
const _: () = assert!(MAX_BACKENDS < Pool::LENGTHS && MAX_PLACES <= BACKEND_IDS);
