//! The table of maps, against what the program has and what the kernel accounts.

use std::fs;

use anyhow::{Result, anyhow};
use aya::{Ebpf, maps::Map, util::nr_cpus};
use lb_userspace::{
    datapath::shapes::{self, Rings, Sizes},
    spec::AttachMode,
};

use crate::world::{World, object};

/// `struct bpf_map` and what each map type adds to it differ from one kernel to another, by version and options.
const STRUCTURE_SLACK_BYTES: u64 = 256;

#[test]
fn the_memory_of_each_map_is_what_the_kernel_accounts() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let opened = world.open(&["front"], AttachMode::Native)?;
        let sizes = Sizes::of(&World::spec(&["front"], AttachMode::Native).limits);
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
        let unpinned: u64 = shapes::unpinned(Rings::IDLE).iter().map(|map| map.memory_bytes(cpus)).sum();
        assert_eq!(opened.capacity.map_memory_bytes, told + unpinned);
        Ok(())
    })
}

/// What a kernel before 6.4 reports (`bpf_map_memory_footprint`): keys and values, without the kernel's own structures.
fn estimate(map: &shapes::MapShape, cpus: u32) -> u64 {
    let value = match map.kind {
        shapes::Kind::PerCpuArray => u64::from(map.value_bytes()).next_multiple_of(8) * u64::from(cpus),
        shapes::Kind::Hash | shapes::Kind::Array | shapes::Kind::DevMap | shapes::Kind::RingBuf => {
            map.value_bytes().into()
        }
    };
    let element = (u64::from(map.key_bytes()) + value).next_multiple_of(8);
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

        let table = shapes::all(&Sizes::default(), Rings::IDLE);
        let is_known = |name: &str| table.iter().any(|map| map.name_in_object() == name);
        // Scratch of one value per CPU, the array of slow paths, and the constants that the compiler names.
        let is_small = |name: &str, map: &Map| {
            name.starts_with(".rodata")
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
