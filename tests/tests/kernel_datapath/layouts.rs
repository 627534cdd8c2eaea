//! Taking over from a version whose maps have different layouts.
//!
//! The other version is this one with its pins rewritten: a map with a different layout in place of ours, and a
//! manifest that lists it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lb_common::{
    backend::{Backend, BackendId},
    counters::{BackendNumber, Tally},
};
use lb_userspace::{
    datapath::{Datapath as _, Opened, Snapshot, layout::MapLayout, shapes},
    spec::AttachMode,
};

use crate::{
    contents::{literal, put_everything},
    killed,
    world::{ROOM, World},
};

#[test]
fn flows_and_contents_survive_another_layout_of_a_map() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (want, maps) = leave_everything(&world)?;
        // As if the counters had come first, and something else had been between them and the pool.
        let other = Other::of("SERVICES", |layout| {
            let [pool, counters, reject, computed] = &mut layout.value[..] else {
                unreachable!("four fields")
            };
            (pool.offset, counters.offset, reject.offset, computed.offset) = (8, 0, 12, 16);
            layout.value.swap(0, 1);
            layout.value.insert(1, literal("removed 4 4 u32"));
        })?;
        let ours = MapData::from_pin(world.pin("SERVICES"))?;
        let ours = HashMap::<_, [u8; 24], [u32; 4]>::try_from(Map::HashMap(ours))?;
        let mut theirs = HashMap::<MapData, [u8; 24], [u32; 5]>::create(4096, 0)?;
        for entry in ours.iter() {
            let (key, [pool, counters, reject, computed]) = entry?;
            theirs.insert(key, [counters, 7, pool, reject, computed], 0)?;
        }
        theirs.pin(other.replaced(&world)?)?;

        let mut opened = world.open(&["front"], AttachMode::Native)?;

        assert!(opened.adopted);
        assert!(!opened.notes.iter().any(|note| note.contains("lost")), "{:?}", opened.notes);
        assert_is_as_left(&mut opened, &want)?;
        assert_eq!(replaced(&world, &maps)?, ["SERVICES"]);
        assert!(!other.pin(&world).exists(), "its pin is left behind");
        Ok(())
    })
}

#[test]
fn counters_of_another_layout_continue() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        leave_everything(&world)?;
        let other = Other::of("BACKEND_COUNTERS", |layout| {
            // It counted packets only, and what was forwarded came last.
            layout.value.truncate(4);
            layout.value.rotate_left(2);
            (0..).zip(&mut layout.value).for_each(|(n, place)| place.offset = 8 * n);
        })?;
        let cpus = nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?;
        let mut theirs = PerCpuArray::<MapData, [u64; 4]>::create(4096, 0)?;
        theirs.set(3, PerCpuValues::try_from(vec![[30, 40, 10, 20]; cpus])?, 0)?;
        theirs.pin(other.replaced(&world)?)?;

        let opened = world.open(&["front"], AttachMode::Native)?;

        let counted = opened.datapath.backend_counters(BackendNumber(3))?;
        let tally = |packets, bytes| Tally { packets: packets * cpus as u64, bytes: bytes * cpus as u64 };
        assert_eq!(
            (counted.forwarded, counted.returned, counted.new_flows),
            (tally(10, 20), tally(30, 40), 0)
        );
        Ok(())
    })
}

#[test]
fn a_map_of_another_key_value_type_or_flags_is_replaced_alone() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        type Pin = fn(PathBuf) -> Result<()>;
        leave_everything(&world)?;
        let others: [(&str, Pin); 4] = [
            ("SERVICES", |pin| Ok(HashMap::<MapData, [u8; 32], [u32; 2]>::create(4096, 0)?.pin(pin)?)),
            ("TURNS", |pin| Ok(Array::<MapData, [u32; 8]>::create(1024, 0)?.pin(pin)?)),
            ("INTERFACES", |pin| Ok(HashMap::<MapData, u32, [u32; 4]>::create(4096, 0)?.pin(pin)?)),
            ("POOLS", |pin| Ok(Array::<MapData, u64>::create(1024, 0)?.pin(pin)?)),
        ];
        for (name, make) in others {
            let maps = world.map_ids()?;
            let other = Other::of(name, |_| {})?;
            make(other.replaced(&world)?)?;

            drop(world.open(&["front"], AttachMode::Native)?);

            assert_eq!(replaced(&world, &maps)?, [name]);
            assert!(!other.pin(&world).exists(), "its pin is left behind");
        }
        Ok(())
    })
}

#[test]
fn with_another_number_of_places_backends_go_to_those_of_their_ids() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (want, _) = leave_everything(&world)?;
        let other = Other::of("BACKENDS", |_| {})?;
        // An id whose place differs between the two sizes of `BACKENDS`.
        let (places, place) = (2 * ROOM.places(), 8);
        let id = ROOM.places() + place;
        let ours = MapData::from_pin(world.pin("BACKENDS"))?;
        let mut value = Array::<_, [u8; 128]>::try_from(Map::Array(ours))?.get(&place, 0)?;
        value[..4].copy_from_slice(&id.to_ne_bytes());
        let mut theirs = Array::<MapData, [u8; 128]>::create(places, 0)?;
        theirs.set(id, value, 0)?;
        theirs.pin(other.replaced(&world)?)?;

        let mut opened = world.open(&["front"], AttachMode::Native)?;

        let backends: Vec<_> = opened.datapath.observe()?.backends.into_values().collect();
        let moved = want.backends.into_values().map(|it| Backend { id: BackendId(id), ..it });
        assert_eq!(backends, moved.collect::<Vec<_>>());
        let ours = MapData::from_pin(world.pin("BACKENDS"))?;
        assert_eq!(Array::<_, [u8; 128]>::try_from(Map::Array(ours))?.get(&place, 0)?, value);
        Ok(())
    })
}

#[test]
fn another_record_costs_only_the_flows_of_its_family_and_is_reported() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (want, maps) = leave_everything(&world)?;
        let other = Other::of("FLOWS4", |layout| layout.value[1].name = "customer".to_owned())?;
        fs::rename(world.pin("FLOWS4"), other.pin(&world))?;
        other.replaced(&world)?;

        let mut opened = world.open(&["front"], AttachMode::Native)?;

        assert!(
            opened.notes.iter().any(|note| note.ends_with("at most 1 IPv4 flow lost")),
            "{:?}",
            opened.notes
        );
        assert_eq!(opened.datapath.observe()?, want);
        assert_eq!(killed::owners(&mut opened)?, []);
        assert_eq!(replaced(&world, &maps)?, ["FLOWS4", "HALF_OPEN4", "HALF_OPEN_CPU4", "REPLY_INDEX4"]);
        Ok(())
    })
}

#[test]
fn what_a_start_that_ended_before_its_links_left_is_ignored() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (want, _) = leave_everything(&world)?;
        let running = world.program("front")?.context("it is not attached")?;
        // A program that was pinned and never ran, and its empty maps.
        let other = Other::of("SERVICES", |layout| layout.value[0].name = "other".to_owned())?;
        HashMap::<MapData, [u8; 24], [u32; 2]>::create(4096, 0)?.pin(other.pin(&world))?;
        pin_manifest(&world, running + 1, &[&other])?;

        let mut opened = world.open(&["front"], AttachMode::Native)?;

        assert_eq!(opened.datapath.observe()?, want);
        assert!(!other.pin(&world).exists());
        assert!(!world.pins().join(format!("layouts_{}", running + 1)).exists());
        Ok(())
    })
}

/// Opens the data plane, puts one of everything and a flow of backend 8 into it, and leaves it as a stopped daemon does.
/// Returns the contents, and each map's id.
pub fn leave_everything(world: &World) -> Result<(Snapshot, BTreeMap<String, u32>)> {
    let mut opened = world.open(&["front"], AttachMode::Native)?;
    let want = put_everything(&mut opened)?;
    world.put_flow(0, BackendId(8))?;
    Ok((want, world.map_ids()?))
}

/// The contents and the flow are those that [`leave_everything`] left.
pub fn assert_is_as_left(opened: &mut Opened, want: &Snapshot) -> Result<()> {
    assert_eq!(opened.datapath.observe()?, *want);
    assert_eq!(killed::owners(opened)?, [BackendId(8)]);
    Ok(())
}

/// The names of the maps whose ids are not these.
pub fn replaced(world: &World, before: &BTreeMap<String, u32>) -> Result<Vec<String>> {
    let now = world.map_ids()?.into_iter();
    Ok(now.filter(|(name, id)| before.get(name) != Some(id)).map(|(name, _)| name).collect())
}

/// A map as another version has it.
pub struct Other {
    layout: MapLayout,
}

impl Other {
    pub fn of(map: &str, change: impl FnOnce(&mut MapLayout)) -> Result<Self> {
        let mut layout = shapes::layout(map).with_context(|| format!("there is no map {map}"))?.clone();
        layout.facts.push_str(", of another version");
        change(&mut layout);
        Ok(Self { layout })
    }

    pub fn pin(&self, world: &World) -> PathBuf {
        world.pins().join(self.layout.pin_name())
    }

    /// Takes its place in the manifest of the program that runs. Returns where it is to be pinned.
    pub fn replaced(&self, world: &World) -> Result<PathBuf> {
        let program = world.program("front")?.context("it is not attached")?;
        fs::remove_file(world.pins().join(format!("layouts_{program}")))?;
        pin_manifest(world, program, &[self])?;
        Ok(self.pin(world))
    }
}

/// Pins a manifest for a program, with these maps instead of ours.
pub fn pin_manifest(world: &World, program: u64, others: &[&Other]) -> Result<()> {
    let ours = shapes::layouts().iter();
    let named = |name: &str| others.iter().find(|other| other.layout.name == name);
    let text: String = ours.map(|it| named(&it.name).map_or(it, |other| &other.layout).to_string()).collect();
    let mut bytes = [0; 16 * 1024];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    let mut map = Array::<MapData, [u8; 16 * 1024]>::create(1, 0)?;
    map.set(0, bytes, 0)?;
    Ok(map.pin(world.pins().join(format!("layouts_{program}")))?)
}
