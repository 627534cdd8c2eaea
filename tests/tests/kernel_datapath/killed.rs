//! What a killed daemon leaves behind.

use std::{collections::BTreeSet, fs};

use anyhow::Result;
use aya::{
    maps::{Array, MapData},
    programs::links::{FdLink, PinnedLink},
};
use lb_common::backend::BackendId;
use lb_userspace::{
    datapath::{self, Datapath, Opened, unfinished},
    spec::AttachMode,
};

use crate::{contents::put_everything, world::World};

#[test]
fn what_a_killed_start_left_half_made_is_created_again() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        fs::create_dir(world.pins())?;
        Array::<MapData, u64>::create(1, 0)?.pin(world.pin("SETTINGS"))?;
        Array::<MapData, u64>::create(1, 0)?.pin(world.pins().join("BACKENDS_00000000"))?;

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert!(!opened.adopted && !world.pins().join("BACKENDS_00000000").exists());
        Ok(())
    })
}

#[test]
fn a_link_whose_pinning_was_interrupted_is_kept() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Native)?);
        let [front, back] = ["front", "back"].map(|name| world.link_id(name));
        let (front, back) = (front?, back?);
        let pin =
            |name: &str| Ok::<_, anyhow::Error>(world.pins().join(format!("link_{}", world.index(name)?)));
        // Pinned and not yet renamed: once without an older pin, once beside a pin of the same link.
        fs::rename(pin("front")?, unfinished(&pin("front")?))?;
        FdLink::from(PinnedLink::from_pin(pin("back")?)?).pin(unfinished(&pin("back")?))?;

        let opened = world.open(&["front", "back"], AttachMode::Native)?;

        assert!(opened.adopted);
        assert_eq!((world.link_id("front")?, world.link_id("back")?), (front, back));
        assert!(!unfinished(&pin("front")?).exists() && !unfinished(&pin("back")?).exists());
        Ok(())
    })
}

#[test]
fn an_unfinished_pin_of_a_killed_daemon_is_detached_like_the_others() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let pin = world.pins().join(format!("link_{}", world.index("front")?));
        fs::rename(&pin, unfinished(&pin))?;

        let said = datapath::detach(&world.pins(), || Ok(()))?;

        assert!(said.contains(&"detached from front".to_owned()), "{said:?}");
        assert_eq!(world.program("front")?, None);
        Ok(())
    })
}

#[test]
fn flows_that_a_dead_daemon_left_behind_are_found_and_freed() -> Result<()> {
    const LEFT: BackendId = BackendId(77);
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        put_everything(&mut opened)?;
        world.put_flow(0, BackendId(8))?;
        world.put_flow(1, LEFT)?;

        assert_eq!(owners(&mut opened)?, [BackendId(8), LEFT]);
        let mut from = Some(0);
        while let Some(stretch) = from {
            from = opened.datapath.sweep(stretch, &BTreeSet::from([LEFT]))?;
        }
        assert_eq!(owners(&mut opened)?, [BackendId(8)]);
        Ok(())
    })
}

/// The backends whose flows a walk over the tables finds.
pub fn owners(opened: &mut Opened) -> Result<Vec<BackendId>> {
    let (mut owners, mut from) = (Vec::new(), Some(0));
    while let Some(stretch) = from {
        from = opened.datapath.flows(stretch, &mut |flow| owners.push(flow.backend_id))?;
    }
    Ok(owners)
}
