//! The table of maps. Pins, preflight, `xlb check` and the documents follow it.
//!
//! A pin does not record the size of its map, and the kernel returns whatever is there, so pins are compared with
//! this table. The memory of a map is computed as the kernel accounts it (`map_mem_usage`, since Linux 6.4; shown as
//! `memlock` in `/proc/PID/fdinfo`), and a test compares the two for each map. (Older kernels estimate, and leave out
//! a few percent.)
//!
//! Small maps that belong to one version of the program are not in the table: the array of its slow paths, and its
//! per-CPU scratch value.

pub mod memory;

use std::sync::LazyLock;

use lb_common::{
    answers::Answers,
    backend::Backend,
    cell::Word,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    event::NeighbourWanted,
    fields,
    flow::{Bucket, Record4, Record6, ReplyLine, Shape},
    hop::Interface,
    layout::{Layout, Type},
    limits::{
        DEFAULT_SLOTS, EVENT_RING_BYTES, FLOW_EVENT_RING_BYTES, IDLE_RING_BYTES, MAX_INTERFACE_INDEX,
        MAX_REASONS, Room,
    },
    net::{Ports, V4, V6},
    pool::{Members, Pool, SlotLine, SourceSet, Turn},
    quiet::FirstSeen,
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};
use lb_ebpf::table::hash;

use super::{
    layout::{MapLayout, fields},
    names::{self, Record},
    past::{self, Counted},
};
use crate::spec::Limits;

/// Sizes that the operator can set. They determine all entry counts that are not fixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The flow table of IPv4.
    pub v4: Shape,
    /// The flow table of IPv6.
    pub v6: Shape,
    /// The maps for services and backends.
    pub room: Room,
}

impl Sizes {
    /// The sizes that the file asks for.
    pub fn of(limits: &Limits) -> Self {
        let half_open = limits.half_open_flows;
        Self {
            v4: Shape::for_flows(limits.flows, half_open),
            v6: Shape::for_flows(limits.flows_ipv6, half_open),
            room: limits.room(),
        }
    }

    /// The sizes of the pinned maps.
    pub fn pinned(settings: &Settings) -> Self {
        // A version without this limit has set none.
        let slots = if settings.slots == 0 { DEFAULT_SLOTS } else { settings.slots };
        let room = Room { services: settings.services, backends: settings.backends, slots };
        Self { v4: settings.shape4, v6: settings.shape6, room }
    }
}

/// A map type, with its number in `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Elements by key, preallocated.
    Hash = 1,
    /// Values by index.
    Array = 2,
    /// Values by index and CPU.
    PerCpuArray = 6,
    /// Interfaces to redirect to.
    DevMap = 14,
    /// Messages to the daemon. The number of entries is in bytes.
    RingBuf = 27,
}

/// What a map's memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Flows of IPv4.
    FlowsV4,
    /// Flows of IPv6.
    FlowsV6,
    /// Services, backends, interfaces, and everything small.
    Services,
    /// Counters per CPU.
    Counters,
}

/// The shape of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// Its name. [`pin_name`] is that of the pin.
    pub name: &'static str,
    /// The category in `xlb check`.
    pub purpose: Purpose,
    /// Its type.
    pub kind: Kind,
    /// The type of a key.
    pub key: Type,
    /// The type of a value, for each CPU if it is per-CPU.
    pub value: Type,
    /// The maximum number of elements.
    pub entries: u32,
    /// `BPF_F_...`
    pub flags: u32,
}

/// `BPF_F_MMAPABLE`
const MAPPED: u32 = 1 << 10;
/// `BPF_F_RDONLY_PROG`: the kernel sets it for every device map.
const READ_ONLY: u32 = 1 << 7;

/// All pinned maps.
pub fn pinned(sizes: &Sizes) -> Vec<MapShape> {
    use Kind::{Array, DevMap, Hash, PerCpuArray, RingBuf};
    use Purpose::{Counters, FlowsV4, FlowsV6, Services};

    const NUMBER: Type = u32::TYPE;
    let map = |name, purpose, kind, key, value, entries, flags| MapShape {
        name,
        purpose,
        kind,
        key,
        value,
        entries,
        flags,
    };
    let Sizes { v4, v6, room } = sizes;
    vec![
        map("SETTINGS", Services, Array, NUMBER, Settings::TYPE, 1, 0),
        map("FILTER", Services, Array, NUMBER, Filter::TYPE, 1, MAPPED),
        map("SERVICES", Services, Hash, ServiceKey::TYPE, Service::TYPE, room.service_entries(), 0),
        map("ORIGINS", Services, Hash, ServiceKey::TYPE, ServiceKey::TYPE, room.places(), 0),
        map("POOLS", Services, Array, NUMBER, Pool::TYPE, room.pools(), MAPPED),
        map("TURNS", Services, Array, NUMBER, Turn::TYPE, room.pools(), MAPPED),
        map("SLOTS", Services, Array, NUMBER, SlotLine::TYPE, room.slot_lines(), MAPPED),
        map("MEMBERS", Services, Array, NUMBER, Members::TYPE, room.pools(), MAPPED),
        map("SOURCES", Services, Array, NUMBER, SourceSet::TYPE, room.source_sets(), MAPPED),
        map("BACKENDS", Services, Array, NUMBER, Backend::TYPE, room.places(), MAPPED),
        map("INTERFACES", Services, Array, NUMBER, Interface::TYPE, MAX_INTERFACE_INDEX, 0),
        map("DEVICES", Services, DevMap, NUMBER, Redirect::TYPE, MAX_INTERFACE_INDEX, READ_ONLY),
        map("FLOWS4", FlowsV4, Array, NUMBER, Bucket::<Record4>::TYPE, v4.buckets, MAPPED),
        map("FLOWS6", FlowsV6, Array, NUMBER, Bucket::<Record6>::TYPE, v6.buckets, MAPPED),
        map("REPLY_INDEX4", FlowsV4, Array, NUMBER, ReplyLine::TYPE, v4.lines, MAPPED),
        map("REPLY_INDEX6", FlowsV6, Array, NUMBER, ReplyLine::TYPE, v6.lines, MAPPED),
        map("HALF_OPEN4", FlowsV4, Array, NUMBER, Word::TYPE, 1, MAPPED),
        map("HALF_OPEN6", FlowsV6, Array, NUMBER, Word::TYPE, 1, MAPPED),
        map("HALF_OPEN_CPU4", FlowsV4, PerCpuArray, NUMBER, Word::TYPE, 1, 0),
        map("HALF_OPEN_CPU6", FlowsV6, PerCpuArray, NUMBER, Word::TYPE, 1, 0),
        map("BACKEND_COUNTERS", Counters, PerCpuArray, NUMBER, BackendCounters::TYPE, room.places(), 0),
        map(
            "SERVICE_COUNTERS",
            Counters,
            PerCpuArray,
            NUMBER,
            ServiceCounters::TYPE,
            room.service_numbers(),
            0,
        ),
        map("REASONS", Counters, PerCpuArray, NUMBER, Tally::TYPE, MAX_REASONS as u32, 0),
        map("ACTIONS", Counters, PerCpuArray, NUMBER, ActionCounters::TYPE, MAX_INTERFACE_INDEX, 0),
        map("ANSWERS", Services, Array, NUMBER, Answers::TYPE, 1, 0),
        map("FIRST_SEEN", Services, Array, NUMBER, FirstSeen::TYPE, FirstSeen::ELEMENTS, 0),
        map("WANTED", Services, RingBuf, Type::NOTHING, Type::NOTHING, EVENT_RING_BYTES as u32, 0),
        map(names::BACKENDS, Services, Hash, NUMBER, Record::TYPE, room.places(), 0),
        map(names::SERVICES, Services, Hash, NUMBER, Record::TYPE, room.service_numbers(), 0),
        map(past::MAP, Counters, Hash, past::Key::TYPE, Counted::TYPE, room.past_names(), 0),
    ]
}

/// `struct bpf_devmap_val`
#[repr(C)]
struct Redirect {
    interface: u32,
    program: u32,
}

fields!(Redirect { interface, program });

/// The layouts of all maps that are pinned, in the order of [`pinned`].
///
/// The configured limits are not part of a layout, but the formulas that compute sizes from them are: a layout states
/// the number of entries for the default limits, so that a changed formula gives a different layout. The sizes of flow
/// tables come from the pinned settings.
static LAYOUTS: LazyLock<Vec<MapLayout>> = LazyLock::new(|| {
    let shapes = pinned(&Sizes { room: Limits::default().room(), ..Sizes::default() });
    let layout = |shape: &MapShape| {
        let layout = shape.layout();
        if shape.kind == Kind::RingBuf {
            return MapLayout { value: fields(&NeighbourWanted::TYPE), ..layout };
        }
        let Some(hash) = flow_hash(shape.purpose) else { return layout };
        // The maps of a family's flow table refer to each other, so they are kept or replaced together.
        let family = shapes.iter().filter(|it| it.purpose == shape.purpose);
        let family: String = family.map(|it| it.layout().pin_name() + " ").collect();
        MapLayout {
            facts: format!("{}, flow hash {hash:016x}, with {}", layout.facts, family.trim_end()),
            ..layout
        }
    };
    shapes.iter().map(layout).collect()
});

/// The layout of each pinned map.
pub fn layouts() -> &'static [MapLayout] {
    &LAYOUTS
}

/// The layout of one of them.
pub fn layout(map: &str) -> Option<&'static MapLayout> {
    layouts().iter().find(|layout| layout.name == map)
}

/// The name of a map's pin: its own name and its version.
pub fn pin_name(map: &str) -> String {
    layout(map).map_or_else(|| map.to_owned(), MapLayout::pin_name)
}

/// The position of a flow in its table depends on the flow hash: with a different hash it would not be found.
fn flow_hash(purpose: Purpose) -> Option<u64> {
    let keys: hash::Keys = std::array::from_fn(|index| 0x9e37_79b9_7f4a_7c15 << index | 1);
    let ports = Ports::from_raw(0x1234_5678);
    match purpose {
        Purpose::FlowsV4 => Some(hash::v4(&keys, V4(0x0102_0304), V4(0x0506_0708), ports, 6)),
        Purpose::FlowsV6 => Some(hash::v6(&keys, V6(1, 2), V6(3, 4), ports, 6)),
        Purpose::Services | Purpose::Counters => None,
    }
}

/// The sizes of the ring buffers that belong to the loaded program, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// For traces.
    pub traces: u32,
    /// For flows that are shared with other nodes.
    pub flow_events: u32,
}

impl Rings {
    /// Neither is used.
    pub const IDLE: Self = Self { traces: IDLE_RING_BYTES, flow_events: IDLE_RING_BYTES };

    /// The size of the one for flows, if they are shared, or are not.
    pub const fn flow_events(are_shared: bool) -> u32 {
        if are_shared { FLOW_EVENT_RING_BYTES } else { IDLE_RING_BYTES }
    }
}

/// The maps that are not pinned.
pub fn unpinned(rings: Rings) -> Vec<MapShape> {
    let ring = |name, entries| MapShape {
        name,
        purpose: Purpose::Services,
        kind: Kind::RingBuf,
        key: Type::NOTHING,
        value: Type::NOTHING,
        entries,
        flags: 0,
    };
    let word = MapShape {
        name: "FLOW_EVENTS_LOST",
        purpose: Purpose::Services,
        kind: Kind::Array,
        key: u32::TYPE,
        value: Word::TYPE,
        entries: 1,
        flags: MAPPED,
    };
    vec![ring("AYA_LOGS", rings.traces), ring("FLOW_EVENTS", rings.flow_events), word]
}

/// All maps.
pub fn all(sizes: &Sizes, rings: Rings) -> Vec<MapShape> {
    [pinned(sizes), unpinned(rings)].concat()
}

/// The memory that the kernel accounts for these maps, with this many possible CPUs.
pub fn memory_bytes(maps: &[MapShape], cpus: u32) -> u64 {
    maps.iter().map(|map| map.memory_bytes(cpus)).sum()
}

const PAGE: u64 = 4096;
/// `struct bpf_array`. Sizes of this and the other structures are from Linux 6.18; other versions differ by some
/// bytes.
const ARRAY: u64 = 312;
/// `struct bpf_htab`
const HASH: u64 = 896;
/// `struct htab_elem` before the key.
const HASH_ELEMENT: u64 = 48;
/// `struct bucket`
const HASH_BUCKET: u64 = 16;
/// `struct bpf_dtab`
const DEVICE_MAP: u64 = 344;
/// `struct bpf_ringbuf_map`
const RING: u64 = 304;
/// `struct bpf_ringbuf`, and the positions of its consumer and producer: one page each.
const RING_PAGES: u64 = 3;
const POINTER: u64 = 8;

impl MapShape {
    /// The name in the program. A single-value map that the program accesses by address is a section of the object, and
    /// named after it.
    pub fn name_in_object(&self) -> &'static str {
        match self.name {
            "SETTINGS" => Settings::SECTION,
            "FILTER" => Filter::SECTION,
            name => name,
        }
    }

    /// Is it part of a flow table?
    pub const fn is_of_flows(&self) -> bool {
        matches!(self.purpose, Purpose::FlowsV4 | Purpose::FlowsV6)
    }

    /// The size of a key.
    pub const fn key_bytes(&self) -> u32 {
        self.key.bytes() as u32
    }

    /// The size of a value.
    pub const fn value_bytes(&self) -> u32 {
        self.value.bytes() as u32
    }

    fn layout(&self) -> MapLayout {
        let (key, value) = (&self.key, &self.value);
        let (key_bytes, value_bytes, count) = (key.bytes(), value.size, value.count);
        let facts = format!(
            "{:?}, key {key_bytes}, value {value_bytes} x {count}, flags {:#x}, entries {}",
            self.kind, self.flags, self.entries
        );
        MapLayout { name: self.name.to_owned(), facts, key: fields(key), value: fields(value) }
    }

    /// The memory that the kernel accounts for the map.
    pub fn memory_bytes(&self, cpus: u32) -> u64 {
        let (entries, cpus) = (u64::from(self.entries), u64::from(cpus));
        let key = u64::from(self.key_bytes()).next_multiple_of(8);
        let value = u64::from(self.value_bytes()).next_multiple_of(8);
        match self.kind {
            // `array_map_mem_usage`: values that can be mapped occupy whole pages.
            Kind::Array if self.flags & MAPPED != 0 => PAGE + (entries * value).next_multiple_of(PAGE),
            Kind::Array => ARRAY + entries * value,
            Kind::PerCpuArray => ARRAY + entries * (POINTER + cpus * value),
            // `htab_map_mem_usage`: all elements are preallocated, and one more per CPU.
            Kind::Hash => {
                let elements = (entries + cpus) * (HASH_ELEMENT + key + value) + cpus * POINTER;
                HASH + elements + entries.next_power_of_two() * HASH_BUCKET
            }
            // `dev_map_mem_usage`
            Kind::DevMap => DEVICE_MAP + entries * POINTER,
            // `ringbuf_map_mem_usage`: the data pages are mapped twice, so that a message can wrap
            // around.
            Kind::RingBuf => {
                let pages = entries / PAGE;
                RING + (RING_PAGES + pages) * PAGE + (RING_PAGES + 2 * pages) * POINTER
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel refuses to make a map without entries.
    #[test]
    fn the_least_limits_make_maps_with_entries() {
        let least =
            Limits { flows: 1, flows_ipv6: 1, half_open_flows: 1, services: 1, backends: 1, slots: 1 };

        for map in pinned(&Sizes::of(&least)) {
            assert!(map.entries > 0, "{}", map.name);
        }
    }

    #[test]
    fn map_memory_equals_what_the_kernel_accounts() {
        let bytes = |size| Type { size, ..u8::TYPE };
        let map = |kind, key_bytes, value_bytes, entries, flags| MapShape {
            name: "",
            purpose: Purpose::Services,
            kind,
            key: bytes(key_bytes),
            value: bytes(value_bytes),
            entries,
            flags,
        };
        // `bpftool map create ...; bpftool map show` on Linux 6.18 with two CPUs: memlock.
        let cases = [
            (map(Kind::Array, 4, 2312, 2048, 0), 4_735_288),
            (map(Kind::Array, 4, 4, 1024, 0), 8504),
            (map(Kind::Array, 4, 8, 2, 0), 328),
            (map(Kind::Array, 4, 64, 1024, MAPPED), 69_632),
            (map(Kind::Array, 4, 1, 1, MAPPED), 8192),
            (map(Kind::PerCpuArray, 4, 40, 4096, 0), 360_760),
            (map(Kind::PerCpuArray, 4, 16, 18, 0), 1032),
            (map(Kind::Hash, 24, 8, 4096, 0), 394_288),
            (map(Kind::Hash, 24, 8, 1000, 0), 97_456),
            (map(Kind::DevMap, 4, 8, 4096, READ_ONLY), 33_112),
            (map(Kind::RingBuf, 0, 0, 16_384, 0), 29_064),
        ];
        for (map, accounted) in cases {
            assert_eq!(map.memory_bytes(2), accounted, "{map:?}");
        }
    }

    #[test]
    fn every_fact_of_a_map_is_part_of_its_layout() {
        let map = pinned(&Sizes::default())[0];
        let others = [
            MapShape { name: "OTHER", ..map },
            MapShape { kind: Kind::PerCpuArray, ..map },
            MapShape { key: u64::TYPE, ..map },
            MapShape { value: u64::TYPE, ..map },
            MapShape { entries: map.entries + 1, ..map },
            MapShape { flags: map.flags | MAPPED, ..map },
        ];

        for other in others {
            assert_ne!(other.layout().pin_name(), map.layout().pin_name(), "{other:?}");
        }
    }

    #[test]
    fn every_map_is_documented() {
        let document = include_str!("../../../docs/ARCHITECTURE.md");

        for shape in pinned(&Sizes::default()) {
            let name = shape.name;
            assert!(document.contains(&format!("`{name}`")), "docs/ARCHITECTURE.md lacks {name}");
        }
    }

    #[test]
    fn names_on_bpffs_have_no_dot() {
        assert!(layouts().iter().all(|layout| !layout.pin_name().contains('.')));
    }
}
