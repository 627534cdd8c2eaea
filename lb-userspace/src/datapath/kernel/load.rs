//! Loads the program over the maps that are pinned, or over new ones.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo, RingBuf},
    programs::Xdp,
};
use lb_common::{
    LAYOUT,
    settings::{PortPool, Settings},
};

use super::{
    KernelDatapath,
    asks::Asks,
    maps::{Maps, Ours},
    slow_paths,
    traces::{Asked, Traces},
};
use crate::datapath::{
    names, past, pins,
    shapes::{self, MapShape, Sizes},
};

/// A program that is loaded and pinned with its maps.
pub struct Loaded {
    pub program: Program,
    maps: Maps,
    asks: Asks,
    traces: Option<Traces>,
}

impl Loaded {
    /// Takes the maps in hand.
    pub fn take(self) -> anyhow::Result<(Program, KernelDatapath, Asks, Option<Traces>)> {
        Ok((self.program, KernelDatapath::new(self.maps)?, self.asks, self.traces))
    }
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

/// What a new data plane is told.
pub struct Cold {
    pub sizes: Sizes,
    pub ports: PortPool,
}

/// Makes a new data plane, all of it or nothing.
pub fn create(object: &[u8], directory: &Path, cold: &Cold) -> anyhow::Result<Loaded> {
    let unfinished = pins::unfinished(directory);
    if unfinished.exists() {
        pins::remove(&unfinished)?;
    }
    fs::create_dir(&unfinished).with_context(|| format!("make {}", unfinished.display()))?;
    let made = fill(object, &unfinished, cold).and_then(|loaded| {
        fs::rename(&unfinished, directory)
            .with_context(|| format!("rename {} to {}", unfinished.display(), directory.display()))?;
        Ok(loaded)
    });
    if made.is_err() {
        pins::remove(&unfinished)?;
    }
    made
}

fn fill(object: &[u8], directory: &Path, cold: &Cold) -> anyhow::Result<Loaded> {
    let shapes = shapes::pinned(&cold.sizes);
    shapes.iter().filter(|shape| is_ours_alone(shape)).try_for_each(|shape| make(shape, directory))?;
    let mut loaded = load(object, directory, &shapes, |maps| {
        maps.set_settings(&Settings {
            layout: LAYOUT,
            keys: random_keys()?,
            shape4: cold.sizes.v4,
            shape6: cold.sizes.v6,
            ports: cold.ports,
            next_backend_id: 1,
            ..Settings::default()
        })
    })?;
    let path = directory.join(pins::PROGRAM);
    loaded.program.xdp()?.pin(&path).with_context(|| format!("pin {}", path.display()))?;
    Ok(loaded)
}

/// Loads the program over the maps of a data plane that runs.
pub fn adopt(object: &[u8], directory: &Path, sizes: &Sizes) -> anyhow::Result<Loaded> {
    let shapes = shapes::pinned(sizes);
    shapes.iter().filter(|it| is_missing(it, directory)).try_for_each(|shape| make(shape, directory))?;
    let mut loaded = load(object, directory, &shapes, |_| Ok(()))?;
    let path = directory.join(pins::PROGRAM);
    let unfinished = pins::unfinished(&path);
    pins::remove_file(&unfinished)?;
    loaded.program.xdp()?.pin(&unfinished).with_context(|| format!("pin {}", unfinished.display()))?;
    fs::rename(&unfinished, &path).with_context(|| format!("rename {}", unfinished.display()))?;
    Ok(loaded)
}

fn load(
    object: &[u8],
    directory: &Path,
    shapes: &[MapShape],
    begin: impl FnOnce(&mut Maps) -> anyhow::Result<()>,
) -> anyhow::Result<Loaded> {
    let asked = Asked::of_log();
    let mut loader = EbpfLoader::new();
    asked.tell(&mut loader);
    for shape in shapes.iter().filter(|shape| !is_ours_alone(shape)) {
        loader
            .map_pin_path(shape.name, directory.join(shape.name))
            .map_max_entries(shape.name, shape.entries);
    }
    let ebpf = loader.load(object).context("load the maps of the XDP program")?;
    verify(directory, shapes).context("the XDP program is of another version than this xlb")?;

    // Before the maps are taken out: the program's code has their file descriptors, which must be open.
    let mut program = Program(ebpf);
    program.xdp()?.load().context("load the XDP program")?;
    let id = program.id()?;
    let Program(ebpf) = &mut program;
    slow_paths::load(ebpf, id, directory)?;

    let named = |name| MapData::from_pin(directory.join(name)).with_context(|| format!("open {name}"));
    let ours = Ours {
        backend_names: named(names::BACKENDS)?,
        service_names: named(names::SERVICES)?,
        past: named(past::MAP)?,
    };
    let mut maps = Maps::take(ebpf, ours)?;
    let ring = ebpf.take_map("WANTED").ok_or_else(|| anyhow!("the XDP program has no map WANTED"))?;
    let asks = Asks(RingBuf::try_from(ring).context("use the map WANTED")?);
    let traces = asked.take(ebpf)?;
    begin(&mut maps)?;
    Ok(Loaded { program, maps, asks, traces })
}

/// The program does not know these.
fn is_ours_alone(shape: &MapShape) -> bool {
    [names::BACKENDS, names::SERVICES, past::MAP].contains(&shape.name)
}

/// Pins that were made before there was such a map: nothing has been kept for any name yet.
fn is_missing(shape: &MapShape, directory: &Path) -> bool {
    shape.name == past::MAP && !directory.join(shape.name).exists()
}

fn make(shape: &MapShape, directory: &Path) -> anyhow::Result<()> {
    let (kind, key, value) = (shape.kind as u32, shape.key_bytes, shape.value_bytes);
    let map = aya_obj::Map::new_from_params(kind, key, value, shape.entries, shape.flags);
    let map = MapData::create(map, shape.name, None).with_context(|| format!("make {}", shape.name))?;
    map.pin(directory.join(shape.name)).with_context(|| format!("pin {}", shape.name))
}

/// What the program that is pinned was told, if everything there is as it must be.
pub fn pinned_settings(directory: &Path) -> anyhow::Result<Settings> {
    let any_size = shapes::pinned(&Sizes::default());
    let foreign = || format!("{} is not this xlb's: `xlb detach` removes it", directory.display());
    verify(directory, any_size.iter().filter(|shape| shape.name == "SETTINGS")).with_context(foreign)?;
    let map = MapData::from_pin(directory.join("SETTINGS")).context("open SETTINGS")?;
    let map = aya::maps::Array::<_, Settings>::try_from(Map::Array(map)).context("read SETTINGS")?;
    let settings = map.get(&0, 0).context("read SETTINGS")?;
    ensure!(settings.layout == LAYOUT, "{}: it is of layout {}", foreign(), settings.layout);
    let shapes = shapes::pinned(&Sizes::pinned(&settings));
    verify(directory, shapes.iter().filter(|it| !is_missing(it, directory))).with_context(foreign)?;
    Ok(settings)
}

/// Compares what is pinned with what it must be: the kernel hands out whatever lies at a path.
fn verify<'a>(directory: &Path, shapes: impl IntoIterator<Item = &'a MapShape>) -> anyhow::Result<()> {
    for expected in shapes {
        let path = directory.join(expected.name);
        let info = MapInfo::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        let MapShape { kind, key_bytes, value_bytes, entries, flags, .. } = *expected;
        let facts = [
            ("type", info.map_type()? as u32, kind as u32),
            ("key bytes", info.key_size(), key_bytes),
            ("value bytes", info.value_size(), value_bytes),
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
