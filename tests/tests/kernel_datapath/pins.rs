//! Pins: restored when they are removed, taken over from another version, removed by `xlb detach`.

use std::{collections::BTreeSet, ffi::OsString, fs, path::Path};

use anyhow::Result;
use lb_userspace::{
    datapath::{self, Datapath, OpenError},
    spec::AttachMode,
};

use crate::{
    contents::put_everything,
    world::{World, open},
};

#[test]
fn removed_pins_are_made_again_of_the_same_objects_and_nothing_is_detached() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (interfaces, pins) = (["front", "back"], world.pins());
        let mut opened = world.open(&interfaces, AttachMode::Native)?;
        let want = put_everything(&mut opened)?;
        let link = format!("link_{}", world.index("front")?);
        let (before, all, maps) = (state(&world)?, names(&pins)?, world.map_ids()?);

        for removed in [pins.clone(), world.pin("FLOWS4"), pins.join(link), pins.join("lb")] {
            if removed.is_dir() { fs::remove_dir_all(&removed) } else { fs::remove_file(&removed) }?;

            let attached = opened.links.refresh()?;

            assert_eq!(attached, opened.attached, "{}", removed.display());
            assert_eq!((state(&world)?, names(&pins)?), (before, all.clone()), "{}", removed.display());
            assert_eq!(world.map_ids()?, maps, "{}", removed.display());
            let (spec, other) =
                (World::spec(&interfaces, AttachMode::Native), datapath::detach(&pins, || Ok(())));
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
fn state(world: &World) -> Result<[(Option<u64>, u32); 2]> {
    let of = |interface| Ok::<_, anyhow::Error>((world.program(interface)?, world.link_id(interface)?));
    Ok([of("front")?, of("back")?])
}

fn names(directory: &Path) -> Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

#[test]
fn the_directory_of_an_older_version_is_taken_over_without_leaving_the_interface() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let spec = World::spec(&["front", "back"], AttachMode::Native);
        let old = world.root().join("pins/v0");
        drop(open(&spec, &old)?);
        let link = world.link_id_in(&old, "front")?;

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert!(!opened.adopted && !old.exists());
        assert_eq!(world.link_id("front")?, link);
        assert_eq!(world.program("back")?, None);
        assert!(opened.notes.iter().any(|line| line.contains("belongs to an older version")));
        Ok(())
    })
}

#[test]
fn a_pin_that_was_removed_while_no_daemon_ran_costs_its_own_contents_alone() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        let want = put_everything(&mut opened)?;
        drop(opened);
        fs::remove_file(world.pin("PAST"))?;

        let mut adopted = world.open(&["front"], AttachMode::Native)?;

        assert!(adopted.adopted);
        assert_eq!(adopted.datapath.observe()?, want);
        assert!(world.pin("PAST").exists());
        Ok(())
    })
}

#[test]
fn services_that_were_lost_leave_the_prefilter_to_the_flows() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        put_everything(&mut opened)?;
        drop(opened);
        let before = world.filter()?;
        fs::remove_file(world.pin("SERVICES"))?;

        let adopted = world.open(&["front"], AttachMode::Native)?;

        assert!(adopted.adopted && before.iter().any(|byte| *byte != 0));
        assert!(world.filter()? == before);
        Ok(())
    })
}

#[test]
fn detaching_removes_everything_of_every_version_and_says_so() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let spec = World::spec(&["back"], AttachMode::Native);
        drop(open(&spec, &world.root().join("pins/v7"))?);
        drop(world.open(&["front"], AttachMode::Native));

        let said = datapath::detach(&world.pins(), || Ok(()))?;

        assert!(said.contains(&"detached from front".to_owned()), "{said:?}");
        assert_eq!((world.program("front")?, world.program("back")?), (None, None));
        assert_eq!(fs::read_dir(world.root().join("pins"))?.count(), 0);
        assert_eq!(datapath::detach(&world.pins(), || Ok(()))?, Vec::<String>::new());
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}
