//! Starts that the data plane refuses, without changing anything.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use aya::maps::{Array, MapData, MapInfo};
use lb_userspace::{
    datapath::{self, Datapath as _, OpenError, native_mtu_max, shapes::pin_name},
    spec::{AttachMode, LinkMode},
};

use crate::{
    contents::put_everything,
    layouts::{Other, assert_is_as_left, leave_everything},
    world::{World, open},
};

#[test]
fn a_second_daemon_on_the_same_pins_is_refused() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let first = world.open(&["front"], AttachMode::Native)?;

        let (spec, pins) = (World::spec(&["back"], AttachMode::Native), world.pins());
        let second = datapath::judge(&spec, &pins);

        assert!(matches!(second, Err(OpenError::Taken(_))), "{second:?}");
        assert!(datapath::detach(&world.pins(), || Ok(())).is_err());
        drop(first);
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}

#[test]
fn a_refused_attach_leaves_nothing_behind() -> Result<()> {
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
fn a_refused_attach_keeps_the_existing_directory() -> Result<()> {
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

/// The program's pin is the only way to them.
#[test]
fn a_refused_attach_keeps_the_maps_of_a_program_without_links() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        let want = put_everything(&mut opened)?;
        drop(opened);
        fs::remove_file(world.pins().join(format!("link_{}", world.index("front")?)))?;
        world.namespace.ip("link set back-peer mtu 9000")?;

        assert!(world.open(&["front", "back"], AttachMode::Native).is_err());

        let mut opened = world.open(&["front"], AttachMode::Native)?;
        assert!(opened.adopted);
        assert_eq!(opened.datapath.observe()?, want);
        Ok(())
    })
}

#[test]
fn a_refused_attach_leaves_a_running_data_plane_as_it_was() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (want, _) = leave_everything(&world)?;
        // Once with our layouts, and once with another layout of a map, which a start would replace.
        for has_other_layout in [false, true] {
            if has_other_layout {
                let other = Other::of("TURNS", |_| {})?;
                fs::rename(world.pin("TURNS"), other.replaced(&world)?)?;
            }
            let state = || -> Result<_> {
                Ok((ids(&world.pins())?, world.program("front")?, world.link_id("front")?, world.filter()?))
            };
            let before = state()?;
            world.namespace.ip("link set back-peer mtu 9000")?;

            assert!(world.open(&["front", "back"], AttachMode::Native).is_err());

            assert_eq!(state()?, before);
            assert_eq!(world.program("back")?, None);
        }

        let mut opened = world.open(&["front"], AttachMode::Native)?;
        assert!(opened.adopted);
        assert_is_as_left(&mut opened, &want)?;
        Ok(())
    })
}

/// The pins, and the ids of all but the links. The kernel's information about a program begins like that about a map.
fn ids(directory: &Path) -> Result<BTreeMap<String, Option<u32>>> {
    let pins = fs::read_dir(directory)?.map(|pin| {
        let pin = pin?;
        let name = pin.file_name().to_string_lossy().into_owned();
        let id = if name.starts_with("link_") { None } else { Some(MapInfo::from_pin(pin.path())?.id()) };
        Ok((name, id))
    });
    pins.collect()
}

#[test]
fn a_refused_mode_change_leaves_all_interfaces_as_they_were() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Generic)?);
        let (programs, pins) = (world.namespace.programs()?, ids(&world.pins())?);
        // `front` is changed before `back` is refused.
        world.namespace.ip("link set back-peer mtu 9000")?;

        assert!(world.open(&["front", "back"], AttachMode::Native).is_err());

        assert_eq!((world.namespace.programs()?, ids(&world.pins())?), (programs, pins));
        assert_eq!(world.namespace.run(&["ip", "link", "show"])?.matches("xdpgeneric").count(), 2);
        world.namespace.ip("link set back-peer mtu 1500")?;
        let opened = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(opened.adopted && opened.attached.iter().all(|it| it.mode == LinkMode::Native));
        Ok(())
    })
}

#[test]
fn a_foreign_program_is_named_and_left_alone() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let theirs = world.root().join("theirs");
        let spec = World::spec(&["front"], AttachMode::Native);
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
fn forwarding_that_is_off_is_refused_with_the_command_to_enable_it() -> Result<()> {
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
        let pin = world.pin("REASONS");
        fs::remove_file(&pin)?;
        Array::<MapData, u64>::create(18, 0)?.pin(&pin)?;

        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;

        assert!(matches!(refused.downcast_ref(), Some(OpenError::Failed(_))), "{refused:#}");
        let told = refused.to_string();
        assert!(
            told.contains(&format!("{} differs from what this version expects", pin_name("REASONS")))
                && told.contains("`xlb detach`"),
            "{told}"
        );
        assert!(world.program("front")?.is_some());
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
