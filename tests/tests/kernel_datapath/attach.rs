//! The program on its interfaces: attached, replaced, removed.

use anyhow::Result;
use lb_common::hop::InterfaceIndex;
use lb_userspace::{
    datapath::Attached,
    spec::{AttachMode, LinkMode},
};

use crate::world::World;

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
fn a_link_whose_device_is_gone_is_attached_again() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Native)?);
        let dead = world.index("back")?;
        world.namespace.ip("link del back\nlink add back type veth peer name back-peer\nlink set back up")?;
        world.forward()?;

        let opened = world.open(&["front", "back"], AttachMode::Native)?;

        let index = world.index("back")?;
        assert_ne!(index, dead);
        assert_eq!(opened.attached[1].index, InterfaceIndex(index));
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
fn an_interface_that_is_no_longer_configured_is_detached() -> Result<()> {
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
        // More than a page holds: drivers without multi-buffer support refuse it.
        world.namespace.ip("link set back mtu 9000\nlink set back-peer mtu 9000")?;

        let opened = world.open(&["front", "back"], AttachMode::Auto)?;
        let modes: Vec<_> = opened.attached.iter().map(|it| it.mode).collect();
        assert_eq!(modes, [LinkMode::Generic, LinkMode::Generic]);
        assert!(
            opened.warnings.iter().any(|line| line.contains("all interfaces use generic mode")),
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
fn a_changed_mode_takes_effect() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        assert_eq!(world.open(&["front"], AttachMode::Auto)?.attached[0].mode, LinkMode::Native);
        assert_eq!(world.open(&["front"], AttachMode::Generic)?.attached[0].mode, LinkMode::Generic);
        assert_eq!(world.open(&["front"], AttachMode::Native)?.attached[0].mode, LinkMode::Native);
        Ok(())
    })
}
