//! Loads the program over the maps of the program that runs, or over new ones.

use std::{fs, fs::File, io::Read, path::Path};

use anyhow::{Context, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapInfo, RingBuf},
    programs::{ProgramInfo, Xdp},
};
use lb_common::settings::{PortPool, Settings};

use super::{
    KernelDatapath,
    asks::Asks,
    carry,
    manifest::{self, Manifest},
    maps::{Maps, Ours},
    slow_paths,
    traces::{Asked, Traces},
};
use crate::datapath::{
    names, past, pins,
    shapes::{self, MapShape, Sizes},
    takeover::Takeover,
};

/// A program that is loaded and pinned with its maps. It runs nowhere yet.
pub struct Loaded {
    pub program: Program,
    pub datapath: KernelDatapath,
    pub asks: Asks,
    pub traces: Option<Traces>,
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

    /// The number by which the kernel knows it.
    pub fn id(&mut self) -> anyhow::Result<u32> {
        Ok(self.xdp()?.info().context("ask the kernel for the program's number")?.id())
    }
}

/// What a new program is loaded with.
pub struct Basis<'a> {
    /// Where everything is pinned.
    pub directory: &'a Path,
    /// From the program that runs.
    pub takeover: &'a Takeover,
    pub sizes: Sizes,
    /// Where none are taken over.
    pub ports: PortPool,
}

/// Loads the program over maps that are whole: kept from the program that runs, filled from its maps, or new.
///
/// The contents of maps that another program works on are not touched, although pins are removed that carry the name of a
/// map that is made here. The manifest comes last: a start that is killed before it leaves nothing that the next one uses.
pub fn load(object: &[u8], basis: &Basis<'_>) -> anyhow::Result<Loaded> {
    let Basis { directory, takeover, sizes, .. } = *basis;
    let shapes = shapes::pinned(&sizes);
    let is_new = |shape: &&MapShape| !takeover.keeps(shape.name);
    for shape in shapes.iter().filter(is_new) {
        pins::remove_file(&pins::map(directory, shape.name))?;
    }
    for shape in shapes.iter().filter(is_new).filter(|shape| is_ours_alone(shape)) {
        make(shape, directory)?;
    }
    let asked = Asked::of_log();
    let (mask, shift) = (sizes.room.places() - 1, sizes.room.filter_shift());
    let mut loader = EbpfLoader::new();
    asked.tell(&mut loader);
    loader.override_global("BACKENDS_MASK", &mask, true).override_global("FILTER_SHIFT", &shift, true);
    for shape in shapes.iter().filter(|shape| !is_ours_alone(shape)) {
        loader
            .map_pin_path(shape.name, pins::map(directory, shape.name))
            .map_max_entries(shape.name, shape.entries);
    }
    let ebpf = loader.load(object).context("load the maps of the XDP program")?;
    verify(directory, &shapes).context("the XDP program is of another version than this xlb")?;

    // Before the maps are taken out: the program's code has their file descriptors, which must be open.
    let mut program = Program(ebpf);
    program.xdp()?.load().context("load the XDP program")?;
    let id = program.id()?;
    let Program(ebpf) = &mut program;
    slow_paths::load(ebpf, id, directory)?;

    let maps = fill(Maps::take(ebpf, Ours::open(directory)?)?, basis, &shapes)?;
    let datapath = KernelDatapath::new(maps)?;
    let ring = ebpf.take_map("WANTED").ok_or_else(|| anyhow!("the XDP program has no map WANTED"))?;
    let asks = Asks(RingBuf::try_from(ring).context("use the map WANTED")?);
    let traces = asked.take(ebpf)?;
    manifest::pin(directory, id)?;
    pin(&mut program, directory)?;
    Ok(Loaded { program, datapath, asks, traces })
}

/// Puts into new maps what the program that runs has, and what every data plane begins with.
fn fill(mut maps: Maps, basis: &Basis<'_>, shapes: &[MapShape]) -> anyhow::Result<Maps> {
    let Basis { directory, takeover, sizes, ports } = *basis;
    for old in &takeover.carried {
        let (Some(shape), Some(layout)) =
            (shapes.iter().find(|it| it.name == old.name), shapes::layout(old.name))
        else {
            continue;
        };
        let path = pins::map(directory, old.name);
        carry::carry((&old.path, &old.layout), (&path, layout), shape)?;
        log::info!("{}: its layout has changed, its contents are copied", old.name);
    }
    let mut settings = maps.settings()?;
    begin(&mut settings, sizes, ports)?;
    maps.set_settings(&settings)?;
    Ok(maps)
}

/// What has no value yet gets the one that data planes begin with.
fn begin(settings: &mut Settings, sizes: Sizes, ports: PortPool) -> anyhow::Result<()> {
    let nothing = Settings::default();
    if settings.keys == nothing.keys {
        settings.keys = random_keys()?;
    }
    if settings.ports == nothing.ports {
        settings.ports = ports;
    }
    settings.next_backend_id = settings.next_backend_id.max(1);
    (settings.shape4, settings.shape6) = (sizes.v4, sizes.v6);
    (settings.services, settings.backends) = (sizes.room.services, sizes.room.backends);
    Ok(())
}

/// Pins the program in the place of the one before.
fn pin(program: &mut Program, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(pins::PROGRAM);
    let unfinished = pins::unfinished(&path);
    pins::remove_file(&unfinished)?;
    program.xdp()?.pin(&unfinished).with_context(|| format!("pin {}", unfinished.display()))?;
    fs::rename(&unfinished, &path).with_context(|| format!("rename {}", unfinished.display()))
}

/// The program does not know these.
fn is_ours_alone(shape: &MapShape) -> bool {
    [names::BACKENDS, names::SERVICES, past::MAP].contains(&shape.name)
}

fn make(shape: &MapShape, directory: &Path) -> anyhow::Result<()> {
    let (kind, key, value) = (shape.kind as u32, shape.key_bytes(), shape.value_bytes());
    let map = aya_obj::Map::new_from_params(kind, key, value, shape.entries, shape.flags);
    let map = MapData::create(map, shape.name, None).with_context(|| format!("make {}", shape.name))?;
    map.pin(pins::map(directory, shape.name)).with_context(|| format!("pin {}", shape.name))
}

/// What the program of a manifest was told, as this version has it. `None` if its settings are gone.
pub fn pinned_settings(directory: &Path, manifest: &Manifest) -> anyhow::Result<Option<Settings>> {
    let Some((path, old)) = manifest.map(directory, "SETTINGS") else { return Ok(None) };
    let ours = shapes::layout("SETTINGS").context("there is no map SETTINGS")?;
    let bytes = carry::only_value((&path, old), ours)?;
    let bytes = bytes.first_chunk::<{ size_of::<Settings>() }>().context("SETTINGS is too short")?;
    // SAFETY: as many bytes as it has, and any integers are settings.
    Ok(Some(unsafe { bytes.as_ptr().cast::<Settings>().read_unaligned() }))
}

/// The id of the program that is pinned, if one is.
pub fn pinned_program(directory: &Path) -> anyhow::Result<Option<u32>> {
    let path = directory.join(pins::PROGRAM);
    if !path.exists() {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(Some(info.id()))
}

/// Refuses maps that are kept and are not what their names say.
pub fn verify_kept(directory: &Path, takeover: &Takeover, sizes: &Sizes) -> anyhow::Result<()> {
    let shapes = shapes::pinned(sizes);
    verify(directory, shapes.iter().filter(|shape| takeover.keeps(shape.name)))
        .with_context(|| format!("{} is not this xlb's: `xlb detach` removes it", directory.display()))
}

/// Compares what is pinned with what it must be: the kernel hands out whatever lies at a path.
fn verify<'a>(directory: &Path, shapes: impl IntoIterator<Item = &'a MapShape>) -> anyhow::Result<()> {
    for expected in shapes {
        let path = pins::map(directory, expected.name);
        let info = MapInfo::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
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
        ensure!(differences.is_empty(), "{} is of another shape: {}", path.display(), differences.join(", "));
    }
    Ok(())
}

/// The keys of the flow hash: who knows them can choose flows that meet in one bucket.
fn random_keys() -> anyhow::Result<[u64; 6]> {
    let mut bytes = [0; 48];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    let mut keys = [0; 6];
    for (key, bytes) in keys.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *key = u64::from_ne_bytes(*bytes);
    }
    Ok(keys)
}
