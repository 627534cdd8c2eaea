//! The data plane's life on a real kernel: made, taken over, refused, removed.

mod contents;
mod killed;
mod slow_paths;
mod world;

use std::{collections::BTreeSet, ffi::OsString, fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues},
    programs::links::{FdLink, PinnedLink},
    util::nr_cpus,
};
use lb_common::{
    LAYOUT, counters::BackendCounters, limits::IDLE_RING_BYTES, net::Be16, service::Filter,
    settings::Settings,
};
use lb_userspace::{
    datapath::{
        self, Attached, Datapath, Op, OpenError, Opened, Snapshot, native_mtu_max,
        shapes::{self, Sizes},
        unfinished,
    },
    spec::{AttachMode, BackendName, LinkMode},
};

use self::{
    contents::{everything, removal},
    world::{World, object, open},
};

#[test]
fn what_is_put_into_the_maps_is_read_back_and_outlives_the_daemon() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(!opened.adopted);
        assert_eq!(opened.datapath.observe()?, Snapshot { next_backend_id: 1, ..Snapshot::default() });

        let (steps, want) = everything(&opened.attached);
        for step in &steps {
            opened.datapath.apply(step)?;
        }
        assert_eq!(opened.datapath.observe()?, want);

        drop(opened);
        let mut adopted = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(adopted.adopted);
        assert_eq!(adopted.datapath.observe()?, want);
        Ok(())
    })
}

#[test]
fn what_is_deleted_is_gone_and_leaves_no_bits_in_the_filter() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        let (steps, want) = everything(&opened.attached);
        for step in &steps {
            opened.datapath.apply(step)?;
        }
        assert_ne!(world.filter()?, Filter::NOTHING);

        for step in removal(&want) {
            opened.datapath.apply(&step)?;
        }

        let left = Snapshot { next_backend_id: 9, hop_generation: 7, ..Snapshot::default() };
        assert_eq!(opened.datapath.observe()?, left);
        assert_eq!(world.filter()?, Filter::NOTHING);
        Ok(())
    })
}

#[test]
fn the_filter_has_the_bits_of_what_is_listened_on_and_served() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        for step in everything(&opened.attached).0 {
            opened.datapath.apply(&step)?;
        }

        let filter = world.filter()?;
        let bits = |address: &str| -> Result<u8> {
            let address: SocketAddr = address.parse()?;
            Ok(filter.byte[Filter::index(Filter::fold(address.ip().into()), Be16::new(address.port()))])
        };
        assert_eq!(bits("192.0.2.10:80")?, Filter::SERVICE);
        assert_eq!(bits("[2001:db8::10]:80")?, Filter::SERVICE);
        assert_eq!(bits("10.0.0.11:8080")?, Filter::BACKEND);
        assert_eq!(filter.byte.iter().filter(|byte| **byte != 0).count(), 3);
        Ok(())
    })
}

#[test]
fn other_limits_than_the_pinned_sizes_change_nothing() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let first = world.open(&["front"], AttachMode::Native)?;
        let capacity = first.capacity;
        drop(first);

        let mut spec = world.spec(&["front"], AttachMode::Native);
        spec.limits.flows *= 2;
        let second = open(&spec, &world.pins())?;

        assert_eq!(second.capacity, capacity);
        Ok(())
    })
}

#[test]
fn a_second_daemon_on_the_same_pins_is_refused() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let first = world.open(&["front"], AttachMode::Native)?;

        let (spec, pins) = (world.spec(&["back"], AttachMode::Native), world.pins());
        let second = datapath::judge(&spec, &pins);

        assert!(matches!(second, Err(OpenError::Taken(_))), "{second:?}");
        assert!(datapath::detach(&world.pins()).is_err());
        drop(first);
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}

#[test]
fn the_program_is_replaced_without_leaving_the_interface() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let (before, link) = (world.program("front")?, world.link_id("front")?);

        drop(world.open(&["front"], AttachMode::Native)?);

        assert_ne!(world.program("front")?, before);
        assert_eq!(world.link_id("front")?, link);
        Ok(())
    })
}

#[test]
fn a_link_whose_device_is_gone_is_attached_anew() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Native)?);
        let dead = world.index("back")?;
        world.namespace.ip("link del back\nlink add back type veth peer name back-peer\nlink set back up")?;
        world.forward()?;

        let opened = world.open(&["front", "back"], AttachMode::Native)?;

        let index = world.index("back")?;
        assert_ne!(index, dead);
        assert_eq!(opened.attached[1].index, index);
        assert!(world.program("back")?.is_some());
        assert!(!world.pins().join(format!("link_{dead}")).exists());
        Ok(())
    })
}

#[test]
fn an_interface_that_comes_back_is_attached_to_again() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front", "back"], AttachMode::Native)?;
        world.namespace.ip("link del back")?;
        let names = |attached: Vec<Attached>| attached.into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(opened.links.refresh()?), ["front"]);

        world.namespace.ip("link add back mtu 1400 type veth peer name back-peer")?;
        let attached = opened.links.refresh()?;

        assert_eq!((attached[1].name.as_str(), attached[1].mtu), ("back", 1400));
        assert!(world.program("back")?.is_some());
        assert_eq!(opened.links.refresh()?, attached);
        Ok(())
    })
}

#[test]
fn removed_pins_are_made_again_of_the_same_objects_and_nothing_is_detached() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (interfaces, pins) = (["front", "back"], world.pins());
        let mut opened = world.open(&interfaces, AttachMode::Native)?;
        let (steps, want) = everything(&opened.attached);
        for step in &steps {
            opened.datapath.apply(step)?;
        }
        let root = pins.parent().context("no root")?;
        let link = format!("link_{}", world.index("front")?);
        let (before, all) = (state(&world)?, names(&pins)?);

        for removed in [root.to_owned(), pins.clone(), pins.join("FLOWS4"), pins.join(link), pins.join("lb")]
        {
            if removed.is_dir() { fs::remove_dir_all(&removed) } else { fs::remove_file(&removed) }?;

            let attached = opened.links.refresh()?;

            assert_eq!(attached, opened.attached, "{}", removed.display());
            assert_eq!((state(&world)?, names(&pins)?), (before, all.clone()), "{}", removed.display());
            let (spec, other) = (world.spec(&interfaces, AttachMode::Native), datapath::detach(&pins));
            assert!(matches!(datapath::judge(&spec, &pins), Err(OpenError::Taken(_))) && other.is_err());
        }

        drop(opened);
        let mut adopted = world.open(&interfaces, AttachMode::Native)?;
        assert!(adopted.adopted);
        assert_eq!(adopted.datapath.observe()?, want);
        Ok(())
    })
}

/// The programs of both interfaces, and their pinned links.
fn state(world: &World) -> Result<[Option<u32>; 4]> {
    Ok([
        world.program("front")?,
        world.program("back")?,
        Some(world.link_id("front")?),
        Some(world.link_id("back")?),
    ])
}

fn names(directory: &Path) -> Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

#[test]
fn an_interface_that_is_configured_no_more_is_left() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Native)?);

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert_eq!(world.program("back")?, None);
        assert!(opened.notes.iter().any(|line| line.starts_with("detached from back")));
        Ok(())
    })
}

#[test]
fn auto_is_generic_on_all_interfaces_if_one_refuses_native() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        // What a page does not hold: drivers without fragments refuse it.
        world.namespace.ip("link set back mtu 9000\nlink set back-peer mtu 9000")?;

        let opened = world.open(&["front", "back"], AttachMode::Auto)?;
        let modes: Vec<_> = opened.attached.iter().map(|it| it.mode).collect();
        assert_eq!(modes, [LinkMode::Generic, LinkMode::Generic]);
        assert!(
            opened.warnings.iter().any(|line| line.contains("generic mode on all")),
            "{:?}",
            opened.warnings
        );

        drop(opened);
        let adopted = world.open(&["front", "back"], AttachMode::Auto)?;
        assert!(adopted.attached.iter().all(|it| it.mode == LinkMode::Generic));
        Ok(())
    })
}

#[test]
fn another_mode_is_taken_when_it_is_configured() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        assert_eq!(world.open(&["front"], AttachMode::Auto)?.attached[0].mode, LinkMode::Native);
        assert_eq!(world.open(&["front"], AttachMode::Generic)?.attached[0].mode, LinkMode::Generic);
        assert_eq!(world.open(&["front"], AttachMode::Native)?.attached[0].mode, LinkMode::Native);
        Ok(())
    })
}

#[test]
fn an_interface_that_refuses_leaves_nothing_behind() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        // The driver looks at the peer's MTU, which no preflight can know.
        world.namespace.ip("link set back-peer mtu 9000")?;

        let refused = world.open(&["front", "back"], AttachMode::Native);

        let error = refused.err().context("it was attached")?;
        assert!(matches!(error.downcast_ref(), Some(OpenError::Unfit(_))), "{error:#}");
        assert_eq!(world.program("front")?, None);
        assert!(!world.root().join("pins").exists());
        Ok(())
    })
}

#[test]
fn an_interface_that_refuses_leaves_the_directory_that_was_there() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        world.namespace.ip("link set back-peer mtu 9000")?;
        let root = world.root().join("pins");
        fs::create_dir(&root)?;

        assert!(world.open(&["front", "back"], AttachMode::Native).is_err());

        assert_eq!(fs::read_dir(&root)?.count(), 0);
        Ok(())
    })
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let theirs = world.root().join("theirs/v1");
        let spec = world.spec(&["front"], AttachMode::Native);
        drop(open(&spec, &theirs)?);
        let program = world.program("front")?.context("it is not attached")?;

        let refused = world.open(&["front", "back"], AttachMode::Native).err().context("it was opened")?;

        assert!(refused.to_string().contains(&format!("front runs another XDP program, id {program}")));
        assert_eq!(world.program("front")?, Some(program));
        assert_eq!(world.program("back")?, None);
        Ok(())
    })
}

#[test]
fn forwarding_that_is_off_is_refused_with_its_cure() -> Result<()> {
    let world = World::new()?;
    world.namespace.sysctl("net.ipv4.ip_forward", "0")?;
    world.inside(|| {
        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;

        assert!(refused.to_string().contains("sysctl -w net.ipv4.ip_forward=1"), "{refused}");
        assert!(!world.pins().exists());
        Ok(())
    })
}

#[test]
fn a_foreign_map_among_the_pins_is_refused() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let pin = world.pins().join("REASONS");
        fs::remove_file(&pin)?;
        Array::<MapData, u64>::create(18, 0)?.pin(&pin)?;

        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;

        assert!(matches!(refused.downcast_ref(), Some(OpenError::Failed(_))), "{refused:#}");
        let told = refused.to_string();
        assert!(told.contains("REASONS is of another shape") && told.contains("`xlb detach`"), "{told}");
        assert!(world.program("front")?.is_some());
        Ok(())
    })
}

#[test]
fn maps_of_another_layout_among_the_pins_are_refused() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let map = MapData::from_pin(world.pins().join("SETTINGS"))?;
        let mut map = Array::<_, Settings>::try_from(Map::Array(map))?;
        let settings = map.get(&0, 0)?;
        map.set(0, Settings { layout: settings.layout + 1, ..settings }, 0)?;
        let program = world.program("front")?;

        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;

        let told = refused.to_string();
        assert!(told.contains("it is of layout") && told.contains("`xlb detach`"), "{told}");
        assert_eq!(world.program("front")?, program);
        Ok(())
    })
}

/// `struct bpf_map` and what each map type adds to it differ from one kernel to another, by version and options.
const STRUCTURE_SLACK_BYTES: u64 = 256;

#[test]
fn the_memory_of_each_map_is_what_the_kernel_accounts() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let opened = world.open(&["front"], AttachMode::Native)?;
        let sizes = Sizes::of(&world.spec(&["front"], AttachMode::Native).limits);
        let cpus = nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))? as u32;

        let mut rows = Vec::new();
        let (exact, slack) =
            if kernel_accounts_exactly()? { (true, STRUCTURE_SLACK_BYTES) } else { (false, 0) };
        for map in shapes::pinned(&sizes) {
            let computed = if exact { map.memory_bytes(cpus) } else { estimate(&map, cpus) };
            rows.push((map.name, computed, world.accounted_bytes(map.name)?));
        }
        rows.retain(|(_, computed, accounted)| computed.abs_diff(*accounted) > slack);
        assert!(rows.is_empty(), "map, computed and accounted bytes: {rows:?}");

        let told: u64 = shapes::pinned(&sizes).iter().map(|map| map.memory_bytes(cpus)).sum();
        // The ring for traces is the one map that is not pinned.
        let idle_ring = shapes::all(&sizes, IDLE_RING_BYTES).pop().context("no map")?;
        assert_eq!(opened.capacity.map_memory_bytes, told + idle_ring.memory_bytes(cpus));
        Ok(())
    })
}

/// What a kernel before 6.4 says (`bpf_map_memory_footprint`): keys and values, and nothing of what holds them.
fn estimate(map: &shapes::MapShape, cpus: u32) -> u64 {
    let value = match map.kind {
        shapes::Kind::PerCpuArray => u64::from(map.value_bytes).next_multiple_of(8) * u64::from(cpus),
        shapes::Kind::Hash | shapes::Kind::Array | shapes::Kind::DevMap | shapes::Kind::RingBuf => {
            map.value_bytes.into()
        }
    };
    let element = (u64::from(map.key_bytes) + value).next_multiple_of(8);
    (u64::from(map.entries) * element).next_multiple_of(4096)
}

/// Before Linux 6.4 (commit 90a5527d7686) the kernel estimates.
fn kernel_accounts_exactly() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    Ok(numbers.get(..2).is_some_and(|version| version >= &[6, 4][..]))
}

#[test]
fn each_map_of_the_program_is_in_the_table_of_maps() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let program = Ebpf::load(&object()?)?;

        let table = shapes::all(&Sizes::default(), IDLE_RING_BYTES);
        let is_known = |name: &str| table.iter().any(|map| map.name == name);
        // Scratch of one value per CPU, the array of slow paths, and the constants that the compiler names.
        let is_small = |name: &str, map: &Map| {
            name.starts_with('.')
                || matches!(map, Map::ProgramArray(_))
                || matches!(map, Map::PerCpuArray(map) if map.info().is_ok_and(|info| info.max_entries() == 1))
        };
        let missing: Vec<_> = program
            .maps()
            .filter(|(name, map)| !is_known(name) && !is_small(name, map))
            .map(|it| it.0)
            .collect();

        assert!(missing.is_empty(), "datapath/shapes.rs lacks {missing:?}");
        Ok(())
    })
}

#[test]
fn the_longest_packet_of_native_mode_is_what_preflight_says() -> Result<()> {
    let world = World::new()?;
    let longest = native_mtu_max(4096);
    let set =
        |mtu: u32| world.namespace.ip(&format!("link set front mtu {mtu}\nlink set front-peer mtu {mtu}"));
    world.inside(|| {
        set(longest + 1)?;
        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;
        assert!(refused.to_string().contains(&format!("ip link set dev front mtu {longest}")), "{refused}");
        assert!(!world.pins().exists());

        set(longest)?;
        assert_eq!(world.open(&["front"], AttachMode::Native)?.attached[0].mode, LinkMode::Native);
        Ok(())
    })
}

#[test]
fn another_layout_is_taken_over_without_leaving_the_interface() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let spec = world.spec(&["front", "back"], AttachMode::Native);
        let old = world.root().join("pins/v0");
        drop(open(&spec, &old)?);
        let link = world.link_id_in(&old, "front")?;

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert!(!opened.adopted && !old.exists());
        assert_eq!(world.link_id("front")?, link);
        assert_eq!(world.program("back")?, None);
        assert!(opened.notes.iter().any(|line| line.contains("another version's layout")));
        Ok(())
    })
}

#[test]
fn detaching_removes_everything_of_every_layout_and_says_so() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let spec = world.spec(&["back"], AttachMode::Native);
        drop(open(&spec, &world.root().join("pins/v7"))?);
        drop(world.open(&["front"], AttachMode::Native));

        let said = datapath::detach(&world.pins())?;

        assert!(said.contains(&"detached from front".to_owned()), "{said:?}");
        assert_eq!((world.program("front")?, world.program("back")?), (None, None));
        assert_eq!(fs::read_dir(world.root().join("pins"))?.count(), 0);
        assert_eq!(datapath::detach(&world.pins())?, Vec::<String>::new());
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}

#[test]
fn counters_are_summed_over_cpus_and_begin_at_zero_with_each_name() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        opened.datapath.apply(&Op::PutBackendName(3, BackendName::new("web", "web-1")))?;
        let map = MapData::from_pin(world.pins().join("BACKEND_COUNTERS"))?;
        let mut counters = PerCpuArray::<_, BackendCounters>::try_from(Map::PerCpuArray(map))?;
        let one = BackendCounters { new_flows: 1, ..BackendCounters::default() };
        let each = PerCpuValues::try_from(vec![one; counters.get(&3, 0)?.len()])?;
        let cpus = each.len() as u64;
        counters.set(3, each, 0)?;

        let counted = |opened: &mut Opened| -> Result<u64> {
            Ok(opened.datapath.totals()?.backends.get(&3).context("nothing was counted")?.new_flows)
        };
        assert_eq!(counted(&mut opened)?, cpus);
        opened.datapath.apply(&Op::PutBackendName(3, BackendName::new("web", "web-1")))?;
        assert_eq!(counted(&mut opened)?, cpus);
        opened.datapath.apply(&Op::PutBackendName(3, BackendName::new("web", "web-2")))?;
        assert_eq!(counted(&mut opened)?, 0);

        // What was counted stays with the name, also for the next daemon.
        let of_name = |opened: &mut Opened| -> Result<Option<u64>> {
            Ok(opened.datapath.totals()?.past.get("web/web-1").map(|it| it.backend.new_flows))
        };
        assert_eq!(of_name(&mut opened)?, Some(cpus));
        drop(opened);
        let mut adopted = world.open(&["front"], AttachMode::Native)?;
        assert_eq!(of_name(&mut adopted)?, Some(cpus));
        Ok(())
    })
}

#[test]
fn pins_from_before_there_was_a_map_of_the_past_are_adopted() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        let (steps, want) = everything(&opened.attached);
        for step in &steps {
            opened.datapath.apply(step)?;
        }
        drop(opened);
        fs::remove_file(world.pins().join("PAST"))?;

        let mut adopted = world.open(&["front"], AttachMode::Native)?;

        assert!(adopted.adopted);
        assert_eq!(adopted.datapath.observe()?, want);
        assert!(world.pins().join("PAST").exists());
        Ok(())
    })
}
