//! Taking over from xlb 0.1.0, which pins its maps in a directory `v3`, by their plain names and without a manifest.
//!
//! The shapes and offsets here are those of 0.1.0.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lb_common::{
    backend::BackendId,
    counters::{BackendCounters, BackendNumber, ServiceNumber, Tally},
    hop::InterfaceIndex,
    net::{Be16, Protocol},
    pool::PoolNumber,
    reason::Reason,
    service::Reject,
};
use lb_userspace::{
    datapath::{Datapath as _, Listen, Opened, ServiceValue},
    spec::{AttachMode, BackendName},
};

use crate::{
    contents::literal,
    layouts::{assert_is_as_left, leave_everything},
    process::{Process, open_if_started},
    world::{World, open},
};

const BACKEND: BackendId = BackendId(5003);
/// The place of the backend among 4,096.
const PLACE: u32 = 907;
const BACKEND_NUMBER: u32 = 4000;
const SERVICE_NUMBER: u32 = 500;
/// How many takeovers are killed, each at a later moment.
const KILLS: u32 = 8;
/// The name of the test that starts itself in these processes.
const KILLED: &str = "first_release::a_takeover_that_is_killed_at_any_moment_is_completed_by_the_next_start";

#[test]
fn everything_except_the_flows_of_0_1_0_is_taken_over_without_leaving_the_interface() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (old, interfaces) = (first_release(&world, AttachMode::Native)?, ["front", "back"]);
        let links = [world.link_id_in(&old, "front")?, world.link_id_in(&old, "back")?];

        let mut opened = world.open(&interfaces, AttachMode::Native)?;

        assert!(opened.adopted && !old.exists());
        assert_eq!([world.link_id("front")?, world.link_id("back")?], links);
        let lost: Vec<_> = opened.notes.iter().filter(|note| note.contains("lost")).collect();
        assert!(
            lost.len() == 1 && lost[0].ends_with("counters are taken over, its flows are lost"),
            "{lost:?}"
        );

        assert_is_taken_over(&world, &mut opened)
    })
}

#[test]
fn a_takeover_that_is_killed_at_any_moment_is_completed_by_the_next_start() -> Result<()> {
    open_if_started()?;
    let interfaces = ["front", "back"];
    let mut takes = Duration::ZERO;
    for number in 0..=KILLS {
        let world = World::new()?;
        let killed = world.inside(|| {
            let old = first_release(&world, AttachMode::Native)?;
            if number == 0 {
                takes = Process::time(KILLED, &world, &interfaces)?;
            } else {
                let process = Process::start(KILLED, &world, &interfaces)?;
                // No event marks the moment: any moment is meant.
                thread::sleep(takes * number / KILLS);
                process.kill()?;
            }

            let mut opened = world.open(&interfaces, AttachMode::Native)?;

            ensure!(opened.adopted && !old.exists(), "not taken over: {:?}", opened.notes);
            assert_is_taken_over(&world, &mut opened)
        });
        killed.with_context(|| format!("killed after {number}/{KILLS} of {takes:?}"))?;
    }
    Ok(())
}

#[test]
fn a_takeover_that_was_killed_after_the_first_link_is_completed_with_the_flows_since() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let (want, _) = leave_everything(&world)?;
        // The link has the program, and its pin is where 0.1.0 made it.
        let old = world.pins().join("v3");
        fs::create_dir(&old)?;
        let link = format!("link_{}", world.index("front")?);
        fs::rename(world.pins().join(&link), old.join(&link))?;
        fs::remove_file(world.pins().join("lb"))?;

        let mut opened = world.open(&["front"], AttachMode::Native)?;

        assert!(opened.adopted && !old.exists());
        assert_is_as_left(&mut opened, &want)?;
        Ok(())
    })
}

#[test]
fn without_one_of_the_maps_of_0_1_0_only_its_interfaces_are_taken_over() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let old = first_release(&world, AttachMode::Native)?;
        fs::remove_file(old.join("SERVICE_NAMES"))?;

        let mut opened = world.open(&["front", "back"], AttachMode::Native)?;

        assert!(!opened.adopted && !old.exists());
        assert!(opened.notes.iter().any(|note| note.ends_with("its flows and counters are lost")));
        assert_eq!(opened.datapath.observe()?.backends.len(), 0);
        Ok(())
    })
}

#[test]
fn a_refused_mode_change_leaves_the_program_of_0_1_0() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        first_release(&world, AttachMode::Generic)?;
        let programs = world.namespace.programs()?;
        // `front` is changed before `back` is refused.
        world.namespace.ip("link set back-peer mtu 9000")?;

        assert!(world.open(&["front", "back"], AttachMode::Native).is_err());

        assert_eq!(world.namespace.programs()?, programs);
        Ok(())
    })
}

/// Is there everything that [`first_release`] has left, except the flows?
fn assert_is_taken_over(world: &World, opened: &mut Opened) -> Result<()> {
    let have = opened.datapath.observe()?;
    let listen = Listen { address: literal("192.0.2.10"), port: Be16::new(80), protocol: Protocol::Tcp };
    let (pool, counters) = (PoolNumber(1001), ServiceNumber(SERVICE_NUMBER));
    // 0.1.0 answered nothing.
    let service = ServiceValue { pool, counters, reject: Reject::Drop, computed: None };
    assert_eq!(have.services, BTreeMap::from([(listen, service)]));
    let [backend] = <[_; 1]>::try_from(have.backends.into_values().collect::<Vec<_>>())
        .map_err(|all| anyhow!("{all:?}"))?;
    assert_eq!((backend.id, backend.accepts, backend.address.to_ip()), (BACKEND, 1, literal("10.0.0.11")));
    assert_eq!(
        (backend.port.get(), backend.counters.0, backend.service_counters.0),
        (8080, BACKEND_NUMBER, SERVICE_NUMBER)
    );
    assert_eq!((backend.hop.interface, backend.hop.mtu), (InterfaceIndex(7), 1500));
    assert_eq!((have.next_backend_id, have.hop_generation), (BackendId(5004), 0));
    let name = BackendName::new("web", "web-1");
    assert_eq!(have.backend_names, BTreeMap::from([(BackendNumber(BACKEND_NUMBER), name)]));
    assert_eq!(have.service_names, BTreeMap::from([(ServiceNumber(SERVICE_NUMBER), "web".to_owned())]));

    let cpus = cpus()? as u64;
    let tally = |packets, bytes| Tally { packets: packets * cpus, bytes: bytes * cpus };
    assert_eq!(
        opened.datapath.backend_counters(BackendNumber(BACKEND_NUMBER))?,
        BackendCounters {
            forwarded: tally(1, 2),
            returned: tally(3, 4),
            new_flows: 5 * cpus,
            ..BackendCounters::default()
        }
    );
    let refused = opened.datapath.service_counters(ServiceNumber(SERVICE_NUMBER))?.refused;
    assert_eq!(refused, tally(6, 7));
    assert_eq!(opened.datapath.totals()?.reasons[&Reason::MtuTooSmall], tally(8, 9));
    let actions = Map::PerCpuArray(MapData::from_pin(world.pin("ACTIONS"))?);
    let actions = PerCpuArray::<_, [u64; 5]>::try_from(actions)?;
    assert!(actions.get(&world.index("front")?, 0)?.iter().all(|counted| *counted == [10, 11, 12, 13, 0]));
    Ok(())
}

/// Leaves what a stopped 0.1.0 leaves, attached to both interfaces, with one of everything that is taken over. Returns its
/// directory.
fn first_release(world: &World, mode: AttachMode) -> Result<PathBuf> {
    let directory = world.pins().join("v3");
    drop(open(&World::spec(&["front", "back"], mode), &directory)?);
    for entry in fs::read_dir(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "lb" && !name.starts_with("link_") {
            fs::remove_file(directory.join(name))?;
        }
    }
    let address = |last: u8, [a, b, c]: [u8; 3]| [[0; 10].as_slice(), &[0xff, 0xff, a, b, c, last]].concat();

    array::<104>(
        &directory,
        "SETTINGS",
        1,
        0,
        0,
        &[(0, &3_u32.to_ne_bytes()), (96, &5004_u32.to_ne_bytes())],
    )?;
    let hop: &[(usize, &[u8])] = &[
        (0, &BACKEND.0.to_ne_bytes()),
        (4, &BACKEND_NUMBER.to_ne_bytes()),
        (8, &SERVICE_NUMBER.to_ne_bytes()),
        (12, &1_u32.to_ne_bytes()),
        (16, &address(11, [10, 0, 0])),
        (32, &8080_u16.to_be_bytes()),
        (40, &[2, 0, 0, 0, 0, 9]),
        (46, &[2, 0, 0, 0, 0, 1]),
        (52, &7_u32.to_ne_bytes()),
        (56, &1500_u32.to_ne_bytes()),
    ];
    array::<64>(&directory, "BACKENDS", 4096, 1 << 10, PLACE, hop)?;
    let key = bytes::<24>(&[(0, &address(10, [192, 0, 2])), (16, &80_u16.to_be_bytes()), (18, &[6])]);
    hash(&directory, "SERVICES", 4096, key, [1001, SERVICE_NUMBER])?;
    hash(&directory, "BACKEND_NAMES", 4096, BACKEND_NUMBER, bytes::<128>(&[(0, b"web/web-1")]))?;
    hash(&directory, "SERVICE_NAMES", 512, SERVICE_NUMBER, bytes::<128>(&[(0, b"web")]))?;
    counters(&directory, "BACKEND_COUNTERS", 4096, BACKEND_NUMBER, [1, 2, 3, 4, 5])?;
    counters(&directory, "SERVICE_COUNTERS", 512, SERVICE_NUMBER, [6, 7])?;
    counters(&directory, "REASONS", 64, 18, [8, 9])?;
    counters(&directory, "ACTIONS", 4096, world.index("front")?, [10, 11, 12, 13])?;
    Ok(directory)
}

/// An array with one value that is not zero.
fn array<const N: usize>(
    directory: &Path,
    name: &str,
    entries: u32,
    flags: u32,
    index: u32,
    fields: &[(usize, &[u8])],
) -> Result<()> {
    let mut map = Array::<MapData, [u8; N]>::create(entries, flags)?;
    map.set(index, bytes::<N>(fields), 0)?;
    Ok(map.pin(directory.join(name))?)
}

fn hash<K: Pod, V: Pod>(directory: &Path, name: &str, entries: u32, key: K, value: V) -> Result<()> {
    let mut map = HashMap::<MapData, K, V>::create(entries, 0)?;
    map.insert(key, value, 0)?;
    Ok(map.pin(directory.join(name))?)
}

/// The same counts on each CPU.
fn counters<const N: usize>(
    directory: &Path,
    name: &str,
    entries: u32,
    index: u32,
    counts: [u64; N],
) -> Result<()>
where
    [u64; N]: Pod,
{
    let mut map = PerCpuArray::<MapData, [u64; N]>::create(entries, 0)?;
    map.set(index, PerCpuValues::try_from(vec![counts; cpus()?])?, 0)?;
    Ok(map.pin(directory.join(name))?)
}

/// A value with these fields, by offset.
fn bytes<const N: usize>(fields: &[(usize, &[u8])]) -> [u8; N] {
    let mut bytes = [0; N];
    for (offset, field) in fields {
        bytes[*offset..offset + field.len()].copy_from_slice(field);
    }
    bytes
}

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))
}
