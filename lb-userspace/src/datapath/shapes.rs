//! The maps: one table of what each of them is. Pins, preflight, `xlb check` and the documents follow it.
//!
//! Pins say nothing of their sizes, and the kernel hands out whatever lies there: the table is what they must be. The
//! memory of a map is computed as the kernel accounts it (`map_mem_usage`, since Linux 6.4; shown as `memlock` in
//! `/proc/PID/fdinfo`), and a test compares the two map by map. (Older kernels estimate, and leave out a few percent.)
//!
//! Not in the table is what belongs to one version of the program and is small: the array of its slow paths, and its
//! scratch of one value per CPU.

pub mod memory;

use lb_common::{
    backend::Backend,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    flow::{Bucket, HintLine, Record4, Record6, Shape},
    hop::Interface,
    limits::{
        EVENT_RING_BYTES, MAX_BACKENDS, MAX_INTERFACE_INDEX, MAX_POOLS, MAX_REASONS, MAX_SERVICE_KEYS,
        MAX_SERVICES, MAX_SLOTS, MAX_SOURCE_SETS,
    },
    pool::{Pool, SlotLine, SourceSet},
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use super::{
    names::{self, Record},
    past,
};
use crate::spec::Limits;

/// What the operator can size: all entries that are not fixed follow from this one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The flow table of IPv4.
    pub v4: Shape,
    /// The flow table of IPv6.
    pub v6: Shape,
}

impl Sizes {
    /// The sizes that the file asks for.
    pub fn of(limits: &Limits) -> Self {
        let half_open = limits.half_open_flows;
        Self {
            v4: Shape::for_flows(limits.flows, half_open),
            v6: Shape::for_flows(limits.flows_ipv6, half_open),
        }
    }

    /// The sizes of the maps that are pinned.
    pub const fn pinned(settings: &Settings) -> Self {
        Self { v4: settings.shape4, v6: settings.shape6 }
    }
}

/// A map type, by its number in `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Elements by key, all allocated beforehand.
    Hash = 1,
    /// Values by index.
    Array = 2,
    /// Values by index and CPU.
    PerCpuArray = 6,
    /// Interfaces to redirect to.
    DevMap = 14,
    /// Messages to the daemon; its entries are bytes.
    RingBuf = 27,
}

/// What a map's memory is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Flows of IPv4.
    FlowsV4,
    /// Flows of IPv6.
    FlowsV6,
    /// Services, backends, interfaces, and everything that is small.
    Services,
    /// Counters per CPU.
    Counters,
}

/// What a map must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// Its name in the program, and that of its pin.
    pub name: &'static str,
    /// Where `xlb check` counts it.
    pub purpose: Purpose,
    /// Its type.
    pub kind: Kind,
    /// The size of a key.
    pub key_bytes: u32,
    /// The size of a value, of each CPU where it has several.
    pub value_bytes: u32,
    /// How many there are at most.
    pub entries: u32,
    /// `BPF_F_...`
    pub flags: u32,
}

/// `BPF_F_MMAPABLE`
const MAPPED: u32 = 1 << 10;
/// `BPF_F_RDONLY_PROG`: the kernel sets it for every device map.
const READ_ONLY: u32 = 1 << 7;

/// All maps that are pinned.
pub fn pinned(sizes: &Sizes) -> Vec<MapShape> {
    use Kind::{Array, DevMap, Hash, PerCpuArray, RingBuf};
    use Purpose::{Counters, FlowsV4, FlowsV6, Services};

    let map = |name, purpose, kind, key_bytes, value: usize, entries, flags| MapShape {
        name,
        purpose,
        kind,
        key_bytes,
        value_bytes: value as u32,
        entries,
        flags,
    };
    let Sizes { v4, v6 } = sizes;
    vec![
        map("SETTINGS", Services, Array, 4, size_of::<Settings>(), 1, 0),
        map("FILTER", Services, Array, 4, size_of::<Filter>(), 1, 0),
        map("SERVICES", Services, Hash, KEY_BYTES, size_of::<Service>(), MAX_SERVICE_KEYS, 0),
        map("POOLS", Services, Array, 4, size_of::<Pool>(), MAX_POOLS, MAPPED),
        map("TURNS", Services, Array, 4, size_of::<u64>(), MAX_POOLS, 0),
        map("SLOTS", Services, Array, 4, size_of::<SlotLine>(), SlotLine::line(MAX_SLOTS), MAPPED),
        map("SOURCES", Services, Array, 4, size_of::<SourceSet>(), MAX_SOURCE_SETS, MAPPED),
        map("BACKENDS", Services, Array, 4, size_of::<Backend>(), MAX_BACKENDS, MAPPED),
        map("INTERFACES", Services, Array, 4, size_of::<Interface>(), MAX_INTERFACE_INDEX, 0),
        // A value is an interface and a program (`struct bpf_devmap_val`).
        map("DEVICES", Services, DevMap, 4, 2 * size_of::<u32>(), MAX_INTERFACE_INDEX, READ_ONLY),
        map("FLOWS4", FlowsV4, Array, 4, size_of::<Bucket<Record4>>(), v4.buckets, MAPPED),
        map("FLOWS6", FlowsV6, Array, 4, size_of::<Bucket<Record6>>(), v6.buckets, MAPPED),
        map("HINTS4", FlowsV4, Array, 4, size_of::<HintLine>(), v4.lines, MAPPED),
        map("HINTS6", FlowsV6, Array, 4, size_of::<HintLine>(), v6.lines, MAPPED),
        map("HALF_OPEN", Services, Array, 4, size_of::<u64>(), 2, MAPPED),
        map("BACKEND_COUNTERS", Counters, PerCpuArray, 4, size_of::<BackendCounters>(), MAX_BACKENDS, 0),
        map("SERVICE_COUNTERS", Counters, PerCpuArray, 4, size_of::<ServiceCounters>(), MAX_SERVICES, 0),
        map("REASONS", Counters, PerCpuArray, 4, size_of::<Tally>(), MAX_REASONS as u32, 0),
        map("ACTIONS", Counters, PerCpuArray, 4, size_of::<ActionCounters>(), MAX_INTERFACE_INDEX, 0),
        map("WANTED", Services, RingBuf, 0, 0, EVENT_RING_BYTES as u32, 0),
        map(names::BACKENDS, Services, Hash, 4, size_of::<Record>(), MAX_BACKENDS, 0),
        map(names::SERVICES, Services, Hash, 4, size_of::<Record>(), MAX_SERVICES, 0),
        map(past::MAP, Counters, Hash, PAST_KEY_BYTES, size_of::<past::Words>(), past::MAX_ENTRIES, 0),
    ]
}

const KEY_BYTES: u32 = size_of::<ServiceKey>() as u32;
const PAST_KEY_BYTES: u32 = size_of::<past::Key>() as u32;

/// The pinned maps and the ring for traces, which belongs to one run of the daemon.
pub fn all(sizes: &Sizes, trace_ring_bytes: u32) -> Vec<MapShape> {
    let ring = MapShape {
        name: "AYA_LOGS",
        purpose: Purpose::Services,
        kind: Kind::RingBuf,
        key_bytes: 0,
        value_bytes: 0,
        entries: trace_ring_bytes,
        flags: 0,
    };
    let mut maps = pinned(sizes);
    maps.push(ring);
    maps
}

/// What the kernel will account for these maps, on a host with this many possible CPUs.
pub fn memory_bytes(maps: &[MapShape], cpus: u32) -> u64 {
    maps.iter().map(|map| map.memory_bytes(cpus)).sum()
}

const PAGE: u64 = 4096;
/// `struct bpf_array`. This and the other structures are those of Linux 6.18; they differ by some bytes elsewhere.
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
/// `struct bpf_ringbuf`, and the positions of its consumer and producer: a page each.
const RING_PAGES: u64 = 3;
const POINTER: u64 = 8;

impl MapShape {
    /// What the kernel accounts for the map.
    pub fn memory_bytes(&self, cpus: u32) -> u64 {
        let (entries, cpus) = (u64::from(self.entries), u64::from(cpus));
        let key = u64::from(self.key_bytes).next_multiple_of(8);
        let value = u64::from(self.value_bytes).next_multiple_of(8);
        match self.kind {
            // `array_map_mem_usage`: values that can be mapped begin and end with a page.
            Kind::Array if self.flags & MAPPED != 0 => PAGE + (entries * value).next_multiple_of(PAGE),
            Kind::Array => ARRAY + entries * value,
            Kind::PerCpuArray => ARRAY + entries * (POINTER + cpus * value),
            // `htab_map_mem_usage`: all elements are allocated beforehand, and one more per CPU.
            Kind::Hash => {
                let elements = (entries + cpus) * (HASH_ELEMENT + key + value) + cpus * POINTER;
                HASH + elements + entries.next_power_of_two() * HASH_BUCKET
            }
            // `dev_map_mem_usage`
            Kind::DevMap => DEVICE_MAP + entries * POINTER,
            // `ringbuf_map_mem_usage`: the data's pages are listed twice, so that they can be read without a break.
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

    #[test]
    fn maps_take_what_the_kernel_accounts() {
        let map = |kind, key_bytes, value_bytes, entries, flags| MapShape {
            name: "",
            purpose: Purpose::Services,
            kind,
            key_bytes,
            value_bytes,
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
    fn each_map_is_in_the_document() {
        let document = include_str!("../../../docs/ARCHITECTURE.md");

        for shape in pinned(&Sizes::default()) {
            let name = shape.name;
            assert!(document.contains(&format!("`{name}`")), "docs/ARCHITECTURE.md lacks {name}");
        }
    }

    #[test]
    fn names_on_bpffs_have_no_dot() {
        assert!(pinned(&Sizes::default()).iter().all(|shape| !shape.name.contains('.')));
    }
}
