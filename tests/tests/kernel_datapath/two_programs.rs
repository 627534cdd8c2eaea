//! After a kill between two links, each interface has a program of its own, with maps of its own.
//!
//! `front` runs this version. `back` runs a newer one, in which some maps have different layouts.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData};
use lb_common::{backend::BackendId, settings::Settings};
use lb_userspace::{
    datapath::{self, Snapshot},
    spec::AttachMode,
};

use crate::{
    contents::put_everything,
    layouts::{Other, assert_is_as_left, pin_manifest, replaced},
    world::World,
};

const INTERFACES: [&str; 2] = ["front", "back"];

#[test]
fn the_program_with_most_of_our_layouts_is_taken_over_and_not_the_newer_one() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let services = Other::of("SERVICES", |_| {})?;
        let (want, maps) = leave_two_programs(&world, &[], &[&services])?;
        HashMap::<MapData, [u8; 24], [u32; 2]>::create(4096, 0)?.pin(services.pin(&world))?;

        let mut opened = world.open(&INTERFACES, AttachMode::Native)?;

        assert_eq!(replaced(&world, &maps)?, [""; 0]);
        assert_is_as_left(&mut opened, &want)?;
        assert!(!services.pin(&world).exists());
        Ok(())
    })
}

#[test]
fn a_program_whose_settings_are_empty_is_not_taken_over_if_another_one_runs() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let settings = Other::of("SETTINGS", |_| {})?;
        let (want, _) = leave_two_programs(&world, &[&settings], &[])?;
        fs::rename(world.pin("SETTINGS"), settings.pin(&world))?;
        Array::<MapData, Settings>::create(1, 0)?.pin(world.pin("SETTINGS"))?;

        let mut opened = world.open(&INTERFACES, AttachMode::Native)?;

        assert_is_as_left(&mut opened, &want)?;
        Ok(())
    })
}

#[test]
fn a_start_that_fails_leaves_the_maps_of_both_programs() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let services = Other::of("SERVICES", |_| {})?;
        let (turns, reasons) = (Other::of("TURNS", |_| {})?, Other::of("REASONS", |_| {})?);
        // The one with more of our layouts lacks a map that the other one has.
        let (_, maps) = leave_two_programs(&world, &[&services], &[&turns, &reasons])?;
        HashMap::<MapData, [u8; 24], [u32; 2]>::create(4096, 0)?.pin(services.pin(&world))?;
        let spec = World::spec(&INTERFACES, AttachMode::Native);

        let failed = datapath::open(datapath::judge(&spec, &world.pins())?, b"not a program");

        assert!(failed.is_err());
        assert_eq!(replaced(&world, &maps)?, [""; 0]);
        assert!(services.pin(&world).exists());
        Ok(())
    })
}

/// Opens the data plane, puts one of everything and a flow of backend 8 into it, and leaves it with two programs whose
/// manifests name these maps instead of ours. Returns the contents, and each map's id.
fn leave_two_programs(
    world: &World,
    older: &[&Other],
    newer: &[&Other],
) -> Result<(Snapshot, BTreeMap<String, u32>)> {
    let mut opened = world.open(&INTERFACES, AttachMode::Native)?;
    let want = put_everything(&mut opened)?;
    world.put_flow(0, BackendId(8))?;
    drop(opened);
    let first = world.program("front")?.context("it is not attached")?;
    // A link without a pin in the directory is not found, and keeps its program.
    let (link, aside) =
        (world.pins().join(format!("link_{}", world.index("front")?)), world.root().join("aside"));
    fs::rename(&link, &aside)?;
    drop(world.open(&["back"], AttachMode::Native)?);
    fs::rename(&aside, &link)?;
    let second = world.program("back")?.context("it is not attached")?;
    ensure!(first < second && world.program("front")? == Some(first), "{first} and {second}");
    pin_manifest(world, first, older)?;
    fs::remove_file(world.pins().join(format!("layouts_{second}")))?;
    pin_manifest(world, second, newer)?;
    Ok((want, world.map_ids()?))
}
