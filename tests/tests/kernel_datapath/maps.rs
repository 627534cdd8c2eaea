//! What is put into the maps, and read back from them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, anyhow};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use lb_common::{
    backend::{Backend, BackendId},
    counters::{BackendCounters, BackendNumber},
    limits::{MAX_BACKENDS, MAX_PLACES, MAX_SERVICES},
    net::Be16,
    quiet::Quiet,
    service::Filter,
};
use lb_userspace::{
    datapath::{Datapath, Op, Opened, Snapshot},
    spec::{AttachMode, BackendName},
};

use crate::{
    contents::{KEY, put_everything, removal},
    world::{World, open},
};

#[test]
fn what_is_put_into_the_maps_is_read_back_and_outlives_the_daemon() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(!opened.adopted);
        assert_eq!(
            opened.datapath.observe()?,
            Snapshot { next_backend_id: BackendId::FIRST, ..Snapshot::default() }
        );

        let want = put_everything(&mut opened)?;
        assert_eq!(opened.datapath.observe()?, want);

        let maps = world.map_ids()?;
        drop(opened);
        let mut adopted = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(adopted.adopted);
        assert_eq!(adopted.datapath.observe()?, want);
        assert_eq!(world.map_ids()?, maps, "the same maps, not copies");
        Ok(())
    })
}

/// The running program uses the pinned maps while the next one is loaded, and aya writes to those that are sections of
/// the object.
#[test]
fn a_start_never_changes_the_settings_and_the_filter_of_the_running_program() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        put_everything(&mut opened)?;
        drop(opened);
        let values = || -> Result<_> { Ok((world.settings()?, world.filter()?)) };
        let before = values()?;
        let is_open = AtomicBool::new(false);

        let (opened, reads, differences) = thread::scope(|scope| -> Result<_> {
            let reader = scope.spawn(|| -> Result<_> {
                let (mut reads, mut differences) = (0, 0);
                while !is_open.load(Ordering::Relaxed) {
                    differences += usize::from(values()? != before);
                    reads += 1;
                }
                Ok((reads, differences))
            });
            let opened = world.open(&["front"], AttachMode::Native);
            is_open.store(true, Ordering::Relaxed);
            let (reads, differences) = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
            Ok((opened?, reads, differences))
        })?;

        assert!(opened.adopted);
        assert_eq!(values()?, before, "after the start");
        assert!(reads > 100, "only {reads} reads while the program was loaded");
        assert_eq!(differences, 0, "of {reads} reads");
        Ok(())
    })
}

#[test]
fn what_is_deleted_is_gone_and_leaves_no_bits_in_the_filter_but_those_of_backends() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        let want = put_everything(&mut opened)?;
        assert!(world.filter()?.iter().any(|byte| *byte != 0));

        for step in removal(&want) {
            opened.datapath.apply(&step)?;
        }

        let left = Snapshot {
            next_backend_id: BackendId(9),
            hop_generation: 7,
            hash_key: KEY,
            quiet: Quiet::Always,
            ..Snapshot::default()
        };
        assert_eq!(opened.datapath.observe()?, left);
        // Ended flows of the backend may still be answered.
        let filter = world.filter()?;
        assert_eq!(filter.iter().filter(|byte| **byte != 0).collect::<Vec<_>>(), [&Filter::BACKEND]);
        Ok(())
    })
}

#[test]
fn the_filter_has_the_bits_of_what_is_listened_on_and_served() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        put_everything(&mut opened)?;

        let filter = world.filter()?;
        let bits = |address: &str| -> Result<u8> {
            let address: SocketAddr = address.parse()?;
            let folded = Filter::fold(address.ip().into());
            Ok(filter[Filter::place(folded, Be16::new(address.port()))])
        };
        assert_eq!(bits("192.0.2.10:80")?, Filter::SERVICE);
        assert_eq!(bits("[2001:db8::10]:80")?, Filter::SERVICE);
        assert_eq!(bits("10.0.0.11:8080")?, Filter::BACKEND);
        assert_eq!(bits("[fd00::11]:8080")?, Filter::ORIGIN);
        assert_eq!(filter.iter().filter(|byte| **byte != 0).count(), 4);
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

        let mut spec = World::spec(&["front"], AttachMode::Native);
        spec.limits.flows *= 2;
        let second = open(&spec, &world.pins())?;

        assert_eq!(second.capacity, capacity);
        Ok(())
    })
}

#[test]
fn maps_of_the_largest_limits_are_created_and_hold_their_last_element() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut spec = World::spec(&["front"], AttachMode::Native);
        (spec.limits.services, spec.limits.backends) = (MAX_SERVICES, MAX_BACKENDS);
        let mut opened = open(&spec, &world.pins())?;

        let mut want = put_everything(&mut opened)?;
        let last = Backend { id: BackendId(MAX_PLACES - 1), ..want.backends[&8] };
        opened.datapath.apply(&Op::PutBackend(last))?;

        want.backends.insert(MAX_PLACES - 1, last);
        assert_eq!(opened.datapath.observe()?, want);
        Ok(())
    })
}

#[test]
fn counters_are_summed_over_cpus_and_begin_at_zero_with_each_name() -> Result<()> {
    const NUMBER: BackendNumber = BackendNumber(3);
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        opened.datapath.apply(&Op::PutBackendName(NUMBER, BackendName::new("web", "web-1")))?;
        let map = MapData::from_pin(world.pin("BACKEND_COUNTERS"))?;
        let mut counters = PerCpuArray::<_, BackendCounters>::try_from(Map::PerCpuArray(map))?;
        let one = BackendCounters { new_flows: 1, ..BackendCounters::default() };
        let each = PerCpuValues::try_from(vec![one; counters.get(&NUMBER.0, 0)?.len()])?;
        let cpus = each.len() as u64;
        counters.set(NUMBER.0, each, 0)?;

        let counted =
            |opened: &Opened| -> Result<u64> { Ok(opened.datapath.backend_counters(NUMBER)?.new_flows) };
        assert_eq!(counted(&opened)?, cpus);
        opened.datapath.apply(&Op::PutBackendName(NUMBER, BackendName::new("web", "web-1")))?;
        assert_eq!(counted(&opened)?, cpus);
        opened.datapath.apply(&Op::PutBackendName(NUMBER, BackendName::new("web", "web-2")))?;
        assert_eq!(counted(&opened)?, 0);

        // What was counted stays with the name, also for the next daemon.
        let of_name =
            |opened: &Opened| opened.datapath.past().get("web/web-1").map(|it| it.backend.new_flows);
        assert_eq!(of_name(&opened), Some(cpus));
        drop(opened);
        let adopted = world.open(&["front"], AttachMode::Native)?;
        assert_eq!(of_name(&adopted), Some(cpus));
        Ok(())
    })
}
