//! Loads the program with the maps of the running program, or with new ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapInfo, RingBuf},
    programs::{ProgramInfo, Xdp},
};
use lb_common::{
    backend::BackendId,
    limits::Room,
    quiet::Quiet,
    settings::{PortPool, Settings},
};

use super::{
    KernelDatapath, carry,
    flow_events::{self, RingEvents},
    manifest::{self, Manifest},
    maps::{DaemonMaps, Maps},
    neighbour_requests::NeighbourRequests,
    slow_paths,
    traces::{TraceLevel, Traces},
};
use crate::{
    datapath::{
        names, past, pins,
        shapes::{self, MapShape, Rings, Sizes},
        sharing::{Reported, Reporter, SharedTables},
        takeover::Takeover,
    },
    hash_key::HashKey,
    spec::Group,
};

/// A program that is loaded and pinned with its maps. It is not attached yet.
pub struct Loaded {
    pub program: Program,
    pub datapath: KernelDatapath,
    pub neighbour_requests: NeighbourRequests,
    pub traces: Option<Traces>,
    /// For the group, if there is one.
    pub shared: Option<SharedTables<RingEvents>>,
}

/// The program, to be attached.
#[derive(Debug)]
pub struct Program(Ebpf);

impl Program {
    pub fn xdp(&mut self) -> anyhow::Result<&mut Xdp> {
        let program = self.0.program_mut(pins::PROGRAM);
        let program = program.ok_or_else(|| anyhow!("the object has no program `{}`", pins::PROGRAM))?;
        program.try_into().context("the program is not XDP")
    }

    /// Pins the program in place of the former one.
    pub fn pin(&mut self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(pins::PROGRAM);
        let unfinished = pins::unfinished(&path);
        pins::remove_file(&unfinished)?;
        self.xdp()?.pin(&unfinished).with_context(|| format!("cannot pin {}", unfinished.display()))?;
        pins::rename(&unfinished, &path)
    }

    /// The kernel's id of the program.
    pub fn id(&mut self) -> anyhow::Result<u32> {
        Ok(self.xdp()?.info().context("cannot read the program id")?.id())
    }
}

/// The place of a node among those that have the same sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Counted from 0.
    pub node: u32,
    /// How many nodes there are.
    pub nodes: u32,
}

impl Share {
    /// That of this node.
    pub fn of(group: &Group) -> Self {
        let (node, nodes) = group.share();
        Self { node: node as u32, nodes: nodes as u32 }
    }
}

/// What a new program is loaded with.
pub struct Basis<'a> {
    /// Where everything is pinned.
    pub directory: &'a Path,
    /// What is taken over from the running program.
    pub takeover: &'a Takeover,
    pub sizes: Sizes,
    /// Source ports, if none are taken over.
    pub ports: PortPool,
    /// This node's place in its group, if it shares flows.
    pub share: Option<Share>,
}

impl Basis<'_> {
    /// Where a map is pinned while the program is loaded.
    fn pin(&self, map: &str) -> PathBuf {
        let path = pins::map(self.directory, map);
        if self.takeover.keeps(map) { path } else { pins::unfinished(&path) }
    }
}

/// Loads the program. Its maps are those kept from the running program, copied from its maps, or new.
///
/// New maps get the names of their pins once they are filled, and the manifest comes last. So whatever manifest the next
/// start finds, if this one is killed or fails, the maps that it lists are complete.
pub fn load(object: &[u8], basis: &Basis<'_>) -> anyhow::Result<Loaded> {
    let Basis { directory, takeover, sizes, share, .. } = *basis;
    let shapes = shapes::pinned(&sizes);
    let new: Vec<&MapShape> = shapes.iter().filter(|shape| !takeover.keeps(shape.name)).collect();
    for shape in &new {
        pins::remove_file(&basis.pin(shape.name))?;
    }
    for shape in new.iter().filter(|shape| is_daemon_map(shape) || is_section(shape)) {
        make(shape, &basis.pin(shape.name))?;
    }
    let trace_level = TraceLevel::of_log();
    let mask = sizes.room.places() - 1;
    let mut loader = EbpfLoader::new();
    trace_level.set(&mut loader);
    loader.override_global("BACKENDS_MASK", &mask, true);
    loader.map_max_entries(flow_events::RING, Rings::flow_events(share.is_some()));
    if share.is_some() {
        flow_events::enable(&mut loader);
    }
    let values = section_values(basis, &shapes)?;
    for (name, value) in &values {
        loader.override_global(name, value.as_slice(), true);
    }
    for shape in shapes.iter().filter(|shape| !is_daemon_map(shape)) {
        loader
            .map_pin_path(shape.name_in_object(), basis.pin(shape.name))
            .map_max_entries(shape.name_in_object(), shape.entries);
    }
    let ebpf = loader.load(object).context("cannot load the maps of the XDP program")?;
    let pinned = shapes.iter().map(|shape| (shape, basis.pin(shape.name)));
    verify(pinned).context("the XDP program does not match this version of xlb")?;

    // Before the maps are taken out: the program refers to them by file descriptor, and those must be open.
    let mut program = Program(ebpf);
    program.xdp()?.load().context("cannot load the XDP program")?;
    let id = program.id()?;
    let Program(ebpf) = &mut program;
    slow_paths::load(ebpf, id, directory)?;

    let (reporter, reported) = share.map(|_| Reporter::new()).unzip();
    let maps = Maps::take(ebpf, DaemonMaps::open(|name| basis.pin(name))?, reporter)?;
    let datapath = KernelDatapath::new(fill(maps, basis, &shapes)?)?;
    let shared = match reported {
        Some(reported) => Some(share_tables(ebpf, &datapath, reported)?),
        None => None,
    };
    let ring = ebpf.take_map("WANTED").ok_or_else(|| anyhow!("the XDP program has no map WANTED"))?;
    let neighbour_requests = NeighbourRequests(RingBuf::try_from(ring).context("cannot use the map WANTED")?);
    let traces = trace_level.take(ebpf)?;
    finish(&new, basis)?;
    manifest::pin(directory, id)?;
    Ok(Loaded { program, datapath, neighbour_requests, traces, shared })
}

/// What the group works on.
fn share_tables(
    ebpf: &mut Ebpf,
    datapath: &KernelDatapath,
    reported: Reported,
) -> anyhow::Result<SharedTables<RingEvents>> {
    let events = RingEvents::take(ebpf)?;
    Ok(SharedTables::new(datapath.flow_tables(), datapath.settings()?, events, reported))
}

/// Fills new maps from those of the running program, and sets the defaults.
fn fill(mut maps: Maps, basis: &Basis<'_>, shapes: &[MapShape]) -> anyhow::Result<Maps> {
    let Basis { takeover, sizes, ports, share, .. } = *basis;
    for old in &takeover.carried {
        let (Some(shape), Some(layout)) =
            (shapes.iter().find(|it| it.name == old.name), shapes::layout(old.name))
        else {
            continue;
        };
        let path = basis.pin(old.name);
        carry::carry((&old.path, &old.layout), (&path, layout), shape)?;
    }
    let mut settings = maps.settings()?;
    set_defaults(&mut settings, sizes, ports)?;
    if share.is_some() {
        // Until the controller knows the flows of the other nodes.
        settings.quiet = Quiet::Always as u32;
    }
    settings.own_ports = share.map_or(settings.ports, |it| settings.ports.share(it.node, it.nodes));
    maps.set_settings(&settings)?;
    Ok(maps)
}

/// Sets the defaults of settings that have no value yet.
fn set_defaults(settings: &mut Settings, sizes: Sizes, ports: PortPool) -> anyhow::Result<()> {
    if !has_keys(settings) {
        // With known keys, an attacker could choose flows that fall into one bucket.
        settings.keys = *HashKey::random().context("cannot read /dev/urandom")?.words();
    }
    if settings.ports == Settings::default().ports {
        settings.ports = ports;
    }
    settings.next_backend_id = settings.next_backend_id.max(BackendId::FIRST);
    (settings.shape4, settings.shape6) = (sizes.v4, sizes.v6);
    let Room { services, backends, slots } = sizes.room;
    (settings.services, settings.backends, settings.slots) = (services, backends, slots);
    Ok(())
}

/// Renames the pins of new maps.
///
/// Another program's manifest may list a map of the same name. After the rename, that manifest refers to the new map.
/// For flow tables this would combine maps that do not belong together. So the former maps of a flow table are removed
/// first: an incomplete flow table is not taken over.
fn finish(new: &[&MapShape], basis: &Basis<'_>) -> anyhow::Result<()> {
    let path = |shape: &MapShape| pins::map(basis.directory, shape.name);
    let flows = new.iter().filter(|shape| shape.is_of_flows());
    flows.map(|shape| path(shape)).try_for_each(|path| pins::remove_file(&path))?;
    new.iter().try_for_each(|shape| pins::rename(&basis.pin(shape.name), &path(shape)))
}

/// Maps that only the daemon uses.
fn is_daemon_map(shape: &MapShape) -> bool {
    [names::BACKENDS, names::SERVICES, past::MAP].contains(&shape.name)
}

/// Maps that are sections of the object.
fn is_section(shape: &MapShape) -> bool {
    shape.name != shape.name_in_object()
}

/// The values of the maps that are sections of the object.
///
/// The loader writes to such a map the value that the section has in the object, even if the map exists and a running
/// program uses it. So it must get the value that the map has: only this daemon changes it, and writing the same bytes
/// changes nothing for the program. That is also why these maps exist before the object is loaded.
fn section_values(basis: &Basis<'_>, shapes: &[MapShape]) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let sections = shapes.iter().filter(|shape| is_section(shape));
    sections.map(|shape| Ok((shape.name, carry::value(&basis.pin(shape.name))?))).collect()
}

fn make(shape: &MapShape, pin: &Path) -> anyhow::Result<()> {
    let (kind, key, value) = (shape.kind as u32, shape.key_bytes(), shape.value_bytes());
    let map = aya_obj::Map::new_from_params(kind, key, value, shape.entries, shape.flags);
    let map =
        MapData::create(map, shape.name, None).with_context(|| format!("cannot create {}", shape.name))?;
    map.pin(pin).with_context(|| format!("cannot pin {}", pin.display()))
}

/// The settings of a manifest's program, in this version's layout. `None` if they are gone, or empty: with them no map
/// could be created.
pub fn pinned_settings(directory: &Path, manifest: &Manifest) -> anyhow::Result<Option<Settings>> {
    let Some((path, old)) = manifest.map(directory, "SETTINGS") else { return Ok(None) };
    let layout = shapes::layout("SETTINGS").context("there is no map SETTINGS")?;
    let bytes = carry::only_value((&path, old), layout)?;
    let bytes = bytes.first_chunk::<{ size_of::<Settings>() }>().context("SETTINGS is too short")?;
    // SAFETY: the length is right, and any bytes are valid settings.
    let settings = unsafe { bytes.as_ptr().cast::<Settings>().read_unaligned() };
    let is_complete = shapes::pinned(&Sizes::pinned(&settings)).iter().all(|shape| shape.entries > 0);
    Ok(is_complete.then_some(settings))
}

/// Do these settings have the keys of the flow hash?
pub fn has_keys(settings: &Settings) -> bool {
    settings.keys != Settings::default().keys
}

/// The id of the program that is pinned, if one is.
pub fn pinned_program(directory: &Path) -> anyhow::Result<Option<u32>> {
    let path = directory.join(pins::PROGRAM);
    if !path.exists() {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Some(info.id()))
}

/// Checks that the maps to be kept have the type and sizes that their names stand for.
pub fn verify_kept(directory: &Path, takeover: &Takeover, sizes: &Sizes) -> anyhow::Result<()> {
    let shapes = shapes::pinned(sizes);
    let kept = shapes.iter().filter(|shape| takeover.keeps(shape.name));
    verify(kept.map(|shape| (shape, pins::map(directory, shape.name)))).with_context(|| {
        format!(
            "the pins in {} do not match this version of xlb: `xlb detach` removes them (and ends all flows)",
            directory.display()
        )
    })
}

/// Compares pinned maps with the table of shapes: the kernel returns whatever is at a path.
fn verify<'a>(pinned: impl Iterator<Item = (&'a MapShape, PathBuf)>) -> anyhow::Result<()> {
    for (expected, path) in pinned {
        let info = MapInfo::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let MapShape { kind, entries, flags, .. } = *expected;
        let facts = [
            ("type", info.map_type()? as u32, kind as u32),
            ("key bytes", info.key_size(), expected.key_bytes()),
            ("value bytes", info.value_size(), expected.value_bytes()),
            ("entries", info.max_entries(), entries),
            ("flags", info.map_flags(), flags),
        ];
        let differences = facts.iter().filter(|(_, found, expected)| found != expected);
        let differences: Vec<String> = differences
            .map(|(fact, found, expected)| format!("{fact} {found} instead of {expected}"))
            .collect();
        ensure!(
            differences.is_empty(),
            "{} differs from what this version expects: {}",
            path.display(),
            differences.join(", ")
        );
    }
    Ok(())
}
