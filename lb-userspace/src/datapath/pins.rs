//! What is pinned, and where.
//!
//! ```text
//!   ROOT/                 XLB_PINS; locked by the daemon that has it
//!     v1/                 one directory per layout: pins of another are never opened
//!       SETTINGS ...      the maps that outlive the daemon
//!       BACKEND_NAMES ... two that only the controller knows
//!       lb                the program
//!       slow_paths_12     the array by which the program of id 12 reaches its slow paths
//!       link_4            its link to the interface of index 4 (bpffs forbids the dot of `eth0.100`)
//!     v1-new/             being made; becomes v1 by one rename, so that v1 is always whole
//! ```
//!
//! Pins say nothing of their sizes, and the kernel hands out whatever lies there: [`shapes`] is what they must be.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use lb_common::{
    backend::Backend,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    flow::{Bucket, HintLine, Record4, Record6, Shape},
    hop::Interface,
    limits::{
        EVENT_RING_BYTES, MAX_BACKENDS, MAX_INTERFACE_INDEX, MAX_POOLS, MAX_REASONS, MAX_SERVICE_KEYS,
        MAX_SERVICES, MAX_TABLES,
    },
    service::{Filter, Pool, Service, ServiceKey, SlotTable},
    settings::Settings,
};

use super::names::{self, Record};
use crate::spec::Limits;

/// The program's pin.
pub const PROGRAM: &str = "lb";
const LINK: &str = "link_";
const UNFINISHED: &str = "-new";

/// A map type, by its number in `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hash = 1,
    Array = 2,
    PerCpuArray = 6,
    DevMap = 14,
    RingBuf = 27,
}

/// What a pinned map must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    pub name: &'static str,
    pub kind: Kind,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub entries: u32,
    pub flags: u32,
}

/// `BPF_F_MMAPABLE`
const MAPPED: u32 = 1 << 10;
/// `BPF_F_RDONLY_PROG`: the kernel sets it for every device map.
const READ_ONLY: u32 = 1 << 7;

/// All maps that are pinned, for flow tables of these sizes.
pub fn shapes(shape4: Shape, shape6: Shape) -> Vec<MapShape> {
    use Kind::{Array, DevMap, Hash, PerCpuArray, RingBuf};

    let map = |name, kind, key_bytes, value: usize, entries, flags| MapShape {
        name,
        kind,
        key_bytes,
        value_bytes: value as u32,
        entries,
        flags,
    };
    vec![
        map("SETTINGS", Array, 4, size_of::<Settings>(), 1, 0),
        map("FILTER", Array, 4, size_of::<Filter>(), 1, 0),
        map("SERVICES", Hash, size_of::<ServiceKey>() as u32, size_of::<Service>(), MAX_SERVICE_KEYS, 0),
        map("POOLS", Array, 4, size_of::<Pool>(), MAX_POOLS, MAPPED),
        map("TURNS", Array, 4, size_of::<u64>(), MAX_POOLS, 0),
        map("TABLES", Array, 4, size_of::<SlotTable>(), MAX_TABLES, 0),
        map("BACKENDS", Array, 4, size_of::<Backend>(), MAX_BACKENDS, MAPPED),
        map("INTERFACES", Array, 4, size_of::<Interface>(), MAX_INTERFACE_INDEX, 0),
        // A value is an interface and a program (`struct bpf_devmap_val`).
        map("DEVICES", DevMap, 4, 2 * size_of::<u32>(), MAX_INTERFACE_INDEX, READ_ONLY),
        map("FLOWS4", Array, 4, size_of::<Bucket<Record4>>(), shape4.buckets, MAPPED),
        map("FLOWS6", Array, 4, size_of::<Bucket<Record6>>(), shape6.buckets, MAPPED),
        map("HINTS4", Array, 4, size_of::<HintLine>(), shape4.lines, MAPPED),
        map("HINTS6", Array, 4, size_of::<HintLine>(), shape6.lines, MAPPED),
        map("HALF_OPEN", Array, 4, size_of::<u64>(), 2, MAPPED),
        map("BACKEND_COUNTERS", PerCpuArray, 4, size_of::<BackendCounters>(), MAX_BACKENDS, 0),
        map("SERVICE_COUNTERS", PerCpuArray, 4, size_of::<ServiceCounters>(), MAX_SERVICES, 0),
        map("REASONS", PerCpuArray, 4, size_of::<Tally>(), MAX_REASONS as u32, 0),
        map("ACTIONS", PerCpuArray, 4, size_of::<ActionCounters>(), MAX_INTERFACE_INDEX, 0),
        map("WANTED", RingBuf, 0, 0, EVENT_RING_BYTES as u32, 0),
        map(names::BACKENDS, Hash, 4, size_of::<Record>(), MAX_BACKENDS, 0),
        map(names::SERVICES, Hash, 4, size_of::<Record>(), MAX_SERVICES, 0),
    ]
}

/// The sizes that the operator asks for.
pub fn flow_tables(limits: &Limits) -> (Shape, Shape) {
    let half_open = limits.half_open_flows;
    (Shape::for_flows(limits.flows, half_open), Shape::for_flows(limits.flows_ipv6, half_open))
}

/// The memory that the kernel takes for all maps of these sizes, where there can be so many CPUs.
pub fn memory_bytes((shape4, shape6): (Shape, Shape), cpus: u32) -> u64 {
    shapes(shape4, shape6).iter().map(|shape| shape.memory_bytes(cpus)).sum()
}

impl MapShape {
    fn memory_bytes(&self, cpus: u32) -> u64 {
        let entries = u64::from(self.entries);
        let value = u64::from(self.value_bytes.next_multiple_of(8));
        match self.kind {
            Kind::Array => entries * value,
            Kind::PerCpuArray => entries * (8 + u64::from(cpus) * value),
            // `struct htab_elem`, and a bucket for each entry, rounded up to a power of two.
            Kind::Hash => {
                entries * (48 + u64::from(self.key_bytes.next_multiple_of(8)) + value)
                    + entries.next_power_of_two() * 16
            }
            Kind::DevMap => entries * 8,
            Kind::RingBuf => ring_bytes(self.entries),
        }
    }
}

/// The memory of a ring, and a page each for its consumer, its producer, and itself.
pub fn ring_bytes(entries: u32) -> u64 {
    u64::from(entries) + 3 * 4096
}

/// Where a link is pinned.
pub fn link(directory: &Path, interface: u32) -> PathBuf {
    directory.join(format!("{LINK}{interface}"))
}

/// The interface indices that a directory has links of.
pub fn links(directory: &Path) -> anyhow::Result<Vec<u32>> {
    let names = names_in(directory)?;
    Ok(names.iter().filter_map(|name| interface(name)).collect())
}

/// Lets links that were pinned take their places, where a kill came before the rename.
///
/// In their places lies what [`attach`](super::attach) was about to replace: nothing, a dead link, or the same one.
pub fn finish_links(directory: &Path) -> anyhow::Result<()> {
    for name in names_in(directory)? {
        let Some(index) = name.strip_suffix(UNFINISHED).and_then(interface) else { continue };
        let unfinished = directory.join(&name);
        fs::rename(&unfinished, link(directory, index))
            .with_context(|| format!("rename {}", unfinished.display()))?;
    }
    Ok(())
}

/// The interface that a link of this name is to.
fn interface(name: &str) -> Option<u32> {
    name.strip_prefix(LINK)?.parse().ok()
}

/// Where something is made before it takes its place by a rename.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    path.with_file_name(name)
}

/// The directories of other layouts beside this one. Their links are named alike.
pub fn other_layouts(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let root = root(directory)?;
    let is_layout = |name: &String| {
        name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok())
            && Some(name.as_ref()) != directory.file_name()
    };
    Ok(names_in(root)?.iter().filter(|name| is_layout(name)).map(|name| root.join(name)).collect())
}

/// Where the layouts' directories lie.
pub fn root(directory: &Path) -> anyhow::Result<&Path> {
    let root = directory.parent().filter(|root| !root.as_os_str().is_empty());
    root.with_context(|| format!("{} lies in no directory of pins", directory.display()))
}

/// Removes a directory and the pins in it; what was pinned and nobody uses is gone then.
pub fn remove(directory: &Path) -> anyhow::Result<()> {
    for name in names_in(directory)? {
        let path = directory.join(name);
        ensure!(!path.is_dir(), "{} is a directory, and none of ours: remove it by hand", path.display());
        remove_file(&path)?;
    }
    fs::remove_dir(directory).with_context(|| format!("remove {}", directory.display()))
}

/// The directories that there must be for this one and are not, the innermost first.
pub fn missing(directory: &Path) -> Vec<PathBuf> {
    directory
        .ancestors()
        .take_while(|it| !it.as_os_str().is_empty() && !it.exists())
        .map(Path::to_path_buf)
        .collect()
}

/// Removes these directories in turn, up to the first that is in use.
pub fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return,
            Err(error) => return log::warn!("remove {}: {error}", directory.display()),
        }
    }
}

/// Removes a pin, if it is there.
pub fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// The names in a directory, in order. None if there is no such directory.
pub fn names_in(directory: &Path) -> anyhow::Result<Vec<String>> {
    let look = || -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    look().with_context(|| format!("look into {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_cost_what_the_manual_promises() {
        let limits = Limits::default();
        let tables = flow_tables(&limits);

        let all = memory_bytes(tables, 2);
        let flows = tables.0.bytes(size_of::<Record4>()) + tables.1.bytes(size_of::<Record6>());

        assert!(flows <= 300 * u64::from(limits.flows) + 400 * u64::from(limits.flows_ipv6));
        assert!(all - flows < 10 << 20, "{} bytes beside the flows", all - flows);
    }

    #[test]
    fn each_map_is_in_the_document() {
        let document = include_str!("../../../docs/ARCHITECTURE.md");

        for shape in shapes(Shape::default(), Shape::default()) {
            let name = shape.name;
            assert!(document.contains(&format!("`{name}`")), "docs/ARCHITECTURE.md lacks {name}");
        }
    }

    #[test]
    fn names_on_bpffs_have_no_dot() {
        let directory = Path::new("/pins/v1");
        let shapes = shapes(Shape::for_flows(8, 8), Shape::for_flows(8, 8));

        assert!(shapes.iter().all(|shape| !shape.name.contains('.')));
        assert_eq!(link(directory, 7), Path::new("/pins/v1/link_7"));
        assert_eq!(unfinished(directory), Path::new("/pins/v1-new"));
    }

    #[test]
    fn other_layouts_are_found_beside_ours_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        for name in ["v1", "v2", "v1-new", "v", "valuable", "v10"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }

        let found = other_layouts(&root.path().join("v2")).unwrap();

        assert_eq!(found, [root.path().join("v1"), root.path().join("v10")]);
    }

    #[test]
    fn of_directories_that_were_made_those_that_nobody_uses_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let innermost = place.path().join("bpf/xlb/other");
        let made = missing(&innermost);
        assert_eq!(made, ["bpf/xlb/other", "bpf/xlb", "bpf"].map(|name| place.path().join(name)));

        fs::create_dir_all(&innermost).unwrap();
        fs::create_dir(place.path().join("bpf/theirs")).unwrap();
        remove_empty(&made);

        assert_eq!(names_in(&place.path().join("bpf")).unwrap(), ["theirs"]);
        assert_eq!(missing(&place.path().join("bpf")), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn links_that_wait_for_their_rename_take_their_places() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["link_3", "link_3-new", "link_4-new", "link_x-new", "lb-new"] {
            fs::write(directory.path().join(name), name).unwrap();
        }

        finish_links(directory.path()).unwrap();

        assert_eq!(names_in(directory.path()).unwrap(), ["lb-new", "link_3", "link_4", "link_x-new"]);
        assert_eq!(fs::read(link(directory.path(), 3)).unwrap(), b"link_3-new");
    }

    #[test]
    fn links_are_found_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["link_12", "link_3", "lb", "link_x"] {
            fs::write(directory.path().join(name), "").unwrap();
        }

        assert_eq!(links(directory.path()).unwrap(), [12, 3]);
        remove(directory.path()).unwrap();
        assert_eq!(links(directory.path()).unwrap(), [0; 0]);
    }
}
