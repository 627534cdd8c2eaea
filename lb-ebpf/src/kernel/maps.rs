//! The maps. The controller opens them by name, and sets sizes at load time.

use aya_ebpf::{
    Global,
    btf_maps::{Array, DevMap, HashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    backend::Backend,
    cell::Word,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    event::NeighbourWanted,
    flow::{Bucket, FlowId, Record4, Record6, ReplyLine},
    hop::Interface,
    limits::{EVENT_RING_BYTES, MAX_INTERFACE_INDEX, MAX_REASONS, Room},
    net::{V4, V6},
    pool::{Members, SlotLine, SourceSet, Turn},
    quiet::FirstSeen,
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use super::{direct::Direct, routes::Query, trace::Written};
use crate::path::slow::SlowPath;
use crate::table::scratch::Scratch;

/// The default sizes, unless the loader sets others.
const ROOM: Room = Room::OBJECT;

/// `BPF_F_MMAPABLE`: the controller reads flows without a system call for each, and values are page-aligned, so that a
/// record of 64 bytes is one cache line.
const MMAPABLE: usize = 1 << 10;

/// Sizes and keys.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.SETTINGS")]
pub static SETTINGS: Direct<Settings> = Direct::new();
/// The prefilter: endpoints of services and backends.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.FILTER")]
pub static FILTER: Direct<Filter> = Direct::new();
/// (address, port, protocol) to pool.
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, Service, { ROOM.service_entries() as usize }> = HashMap::new();
/// (address, port, protocol) of a backend to that of its service.
#[btf_map]
pub static ORIGINS: HashMap<ServiceKey, ServiceKey, { ROOM.places() as usize }> = HashMap::new();
/// The current `Pool` word of each pool. Mapped, so that the controller replaces it by a single store.
#[btf_map]
pub static POOLS: Array<Word, { ROOM.pools() as usize }, MMAPABLE> = Array::new();
/// The slots of all pools.
#[btf_map]
pub static SLOTS: Array<SlotLine, { ROOM.slot_lines() as usize }, MMAPABLE> = Array::new();
/// The members of each pool.
#[btf_map]
pub static MEMBERS: Array<Members, { ROOM.pools() as usize }, MMAPABLE> = Array::new();
/// Sets of sources.
#[btf_map]
pub static SOURCES: Array<SourceSet, { ROOM.source_sets() as usize }, MMAPABLE> = Array::new();
/// The turn and the number of ejected backends, by pool.
#[btf_map]
pub static TURNS: Array<Turn, { ROOM.pools() as usize }, MMAPABLE> = Array::new();
/// Backends, by `id % ROOM.places()`.
#[btf_map]
pub static BACKENDS: Array<Backend, { ROOM.places() as usize }, MMAPABLE> = Array::new();
/// Interfaces, by index.
#[btf_map]
pub static INTERFACES: Array<Interface, { MAX_INTERFACE_INDEX as usize }> = Array::new();
/// Redirect targets, by interface index.
#[btf_map]
pub static DEVICES: DevMap<{ MAX_INTERFACE_INDEX as usize }> = DevMap::new();
/// Records of IPv4 flows.
#[btf_map]
pub static FLOWS4: Array<Bucket<Record4>, 1, MMAPABLE> = Array::new();
/// Records of IPv6 flows.
#[btf_map]
pub static FLOWS6: Array<Bucket<Record6>, 1, MMAPABLE> = Array::new();
/// Reply index of IPv4 flows.
#[btf_map]
pub static REPLY_INDEX4: Array<ReplyLine, 1, MMAPABLE> = Array::new();
/// Reply index of IPv6 flows.
#[btf_map]
pub static REPLY_INDEX6: Array<ReplyLine, 1, MMAPABLE> = Array::new();
/// Shared count of half-open IPv4 flows, without the differences in `HALF_OPEN_CPU4`.
#[btf_map]
pub static HALF_OPEN4: Array<Word, 1, MMAPABLE> = Array::new();
/// Shared count of half-open IPv6 flows, without the differences in `HALF_OPEN_CPU6`.
#[btf_map]
pub static HALF_OPEN6: Array<Word, 1, MMAPABLE> = Array::new();
/// What each CPU has not yet added to `HALF_OPEN4`.
#[btf_map]
pub static HALF_OPEN_CPU4: PerCpuArray<Word, 1> = PerCpuArray::new();
/// What each CPU has not yet added to `HALF_OPEN6`.
#[btf_map]
pub static HALF_OPEN_CPU6: PerCpuArray<Word, 1> = PerCpuArray::new();
/// Counters of backends, by counters number.
#[btf_map]
pub static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { ROOM.places() as usize }> = PerCpuArray::new();
/// Counters of services, by counters number.
#[btf_map]
pub static SERVICE_COUNTERS: PerCpuArray<ServiceCounters, { ROOM.service_numbers() as usize }> =
    PerCpuArray::new();
/// Packets not forwarded, by reason.
#[btf_map]
pub static REASONS: PerCpuArray<Tally, MAX_REASONS> = PerCpuArray::new();
/// Packets by XDP action, by interface index.
#[btf_map]
pub static ACTIONS: PerCpuArray<ActionCounters, { MAX_INTERFACE_INDEX as usize }> = PerCpuArray::new();
/// The account of answers to refused packets: one [`Answers`](lb_common::answers::Answers) word.
#[btf_map]
pub static ANSWERS: Array<Word, 1> = Array::new();
/// When flows that are not known were first seen: [`FirstSeen`] words.
#[btf_map]
pub static FIRST_SEEN: Array<Word, { FirstSeen::ELEMENTS as usize }> = Array::new();
/// Neighbours that the daemon should resolve.
#[btf_map]
pub static WANTED: RingBuf<NeighbourWanted, EVENT_RING_BYTES> = RingBuf::new();

/// Flows that have become shared, or are shared no more. The loader sets its size.
#[btf_map]
pub static FLOW_EVENTS: RingBuf<FlowId, EVENT_RING_BYTES> = RingBuf::new();
/// One word: how many events of flows did not fit into `FLOW_EVENTS`.
#[btf_map]
pub static FLOW_EVENTS_LOST: Array<Word, 1, MMAPABLE> = Array::new();

/// Working memory of this CPU's slow paths, IPv4.
#[btf_map]
pub static SCRATCH4: PerCpuArray<Scratch<V4>, 1> = PerCpuArray::new();
/// Working memory of this CPU's slow paths, IPv6.
#[btf_map]
pub static SCRATCH6: PerCpuArray<Scratch<V6>, 1> = PerCpuArray::new();

/// The slow paths, by number.
#[btf_map]
pub static SLOW_PATHS: ProgramArray<{ SlowPath::ALL.len() }> = ProgramArray::new();

/// Arguments and result of this CPU's route lookup.
#[btf_map]
pub static QUERY: PerCpuArray<Query, 1> = PerCpuArray::new();

/// Rate limit of this CPU's traces.
#[btf_map]
pub static TRACED: PerCpuArray<Written, 1> = PerCpuArray::new();

/// Nonzero in tests that stop the clock at `Settings::clock`. Read-only data, so the verifier removes the unused branch.
#[unsafe(no_mangle)]
pub static CLOCK_IS_SET: Global<u8> = Global::new(0);

/// Nonzero if flows are shared with other nodes. Read-only data, so without them the verifier removes the reports.
#[unsafe(no_mangle)]
pub static SHARES_FLOWS: Global<u8> = Global::new(0);

/// The number of elements of `BACKENDS`, less one. The loader sets it. With the default no backend is found, so tests fail
/// if it is not set.
#[unsafe(no_mangle)]
pub static BACKENDS_MASK: Global<u32> = Global::new(0);
