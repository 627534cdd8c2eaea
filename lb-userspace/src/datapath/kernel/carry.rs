//! Copies the contents of a map to one with a different layout, field by field.

use std::{io, mem::offset_of, path::Path};

use anyhow::Context;
use aya::maps::{MapData, MapInfo};
use lb_common::{
    backend::{Backend, BackendId},
    cell::Word,
    flow::{Control, WAYS},
    layout::{Content, Layout as _},
};

use super::raw;
use crate::datapath::{
    layout::{Conversion, MapLayout},
    mapping::Mapping,
    names,
    shapes::{Kind, MapShape, Purpose},
};

/// A map as bytes.
struct Bytes {
    map: MapData,
    key: usize,
    /// Size of a value for one CPU.
    value: usize,
    /// CPUs with a value of their own, or 1.
    values: usize,
    entries: u32,
}

impl Bytes {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<Self> {
            let info = MapInfo::from_pin(path)?;
            let is_per_cpu = info.map_type()? as u32 == Kind::PerCpuArray as u32;
            let cpus =
                || aya::util::nr_cpus().map_err(|(file, error)| anyhow::Error::new(error).context(file));
            // The kernel rounds up the size of per-CPU values.
            let (value, values) = match (is_per_cpu, info.value_size() as usize) {
                (true, bytes) => (bytes.next_multiple_of(8), cpus()?),
                (false, bytes) => (bytes, 1),
            };
            let map = MapData::from_pin(path)?;
            Ok(Self { map, key: info.key_size() as usize, value, values, entries: info.max_entries() })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value * self.values];
        Ok(raw::lookup(self.map.fd(), key, &mut value)?.then_some(value))
    }

    fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut next = vec![0; self.key];
        while raw::next_key(self.map.fd(), keys.last().map(Vec::as_slice), &mut next)? {
            keys.push(next.clone());
        }
        Ok(keys)
    }
}

/// Copies all elements to an empty map. Fields without a counterpart in the old layout stay zero. Elements that do not fit are
/// left out. A map that cannot be converted is left empty: for example, a hash whose old keys lack a part of the new key.
pub fn carry(old: (&Path, &MapLayout), new: (&Path, &MapLayout), shape: &MapShape) -> anyhow::Result<()> {
    let ((old_path, old_layout), (new_path, new_layout)) = (old, new);
    let (old, new) = (Bytes::open(old_path)?, Bytes::open(new_path)?);
    let keys = Conversion::between(&old_layout.key, &new_layout.key);
    let values = Conversion::between(&old_layout.value, &new_layout.value);
    if !(keys.is_whole(&new_layout.key) && values.has_any()) {
        log::warn!("{} cannot be converted to its new layout: {}", shape.name, what_is_lost(shape));
        return Ok(());
    }
    let copy = || -> io::Result<bool> {
        let mut is_complete = true;
        for (count, old_key) in (0..).zip(old.keys()?) {
            let Some(old_value) = old.lookup(&old_key)? else { continue };
            let (mut key, mut value) = (vec![0; new.key], vec![0; new.value * new.values]);
            keys.apply(&old_key, &mut key);
            for (old, new) in old_value.chunks(old.value).zip(value.chunks_mut(new.value)) {
                values.apply(old, new);
            }
            let is_hash = shape.kind == Kind::Hash;
            if !is_hash && is_zero(&value) {
                continue;
            }
            let has_room = if is_hash {
                count < new.entries
            } else if shape.name == "BACKENDS" {
                key = place(&value, new.entries).to_ne_bytes().to_vec();
                new.lookup(&key)?.is_some_and(|there| is_zero(&there))
            } else {
                u32_at(&key, 0) < new.entries
            };
            if has_room {
                raw::update(new.map.fd(), &key, &value)?;
            }
            is_complete &= has_room;
        }
        Ok(is_complete)
    };
    let is_complete =
        copy().with_context(|| format!("cannot copy {} to {}", old_path.display(), new_path.display()))?;
    if is_complete {
        log::info!("map {}: layout changed, contents copied", shape.name);
    } else {
        log::warn!("map {} is too small for its former contents: some entries are lost", shape.name);
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The element of `BACKENDS` for this backend. It depends on the number of elements.
fn place(backend: &[u8], places: u32) -> u32 {
    BackendId(u32_at(backend, offset_of!(Backend, id))).place(places)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|it| it.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The consequence of a map that starts empty. The daemon fills it after the links have the new program.
fn what_is_lost(shape: &MapShape) -> &'static str {
    match (shape.purpose, shape.name) {
        (Purpose::Counters, _) => "its counts start at zero",
        (_, names::BACKENDS | names::SERVICES) => {
            "counts start at zero, and the health of backends is unknown"
        }
        (_, "BACKENDS") => "all flows end",
        (_, "TURNS") => "round-robin starts with the first backend",
        (Purpose::Services | Purpose::FlowsV4 | Purpose::FlowsV6, _) => {
            "new connections may fail for a moment"
        }
    }
}

/// The only value of a pinned array.
pub fn value(path: &Path) -> anyhow::Result<Vec<u8>> {
    let value = Bytes::open(path)?.lookup(&0_u32.to_ne_bytes());
    value
        .and_then(|value| value.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("cannot read {}", path.display()))
}

/// The only value of an array, converted to this version's layout.
pub fn only_value(old: (&Path, &MapLayout), new: &MapLayout) -> anyhow::Result<Vec<u8>> {
    let (path, layout) = old;
    let old = Bytes::open(path)?;
    let value =
        old.lookup(&0_u32.to_ne_bytes()).with_context(|| format!("cannot read {}", path.display()))?;
    let mut converted = vec![0; new.value_bytes()];
    Conversion::between(&layout.value, &new.value).apply(&value.unwrap_or_default(), &mut converted);
    Ok(converted)
}

/// The most flows that a table with a different layout can have: some may have expired. `None` if it cannot be read.
pub fn count_flows(path: &Path, layout: &MapLayout) -> Option<usize> {
    let Content::Plain(control) = Control::TYPE.content else { return None };
    let place = layout.value.iter().find(|place| place.name == "control" && place.what == control)?;
    let old = Bytes::open(path).ok()?;
    let (record, word) = (layout.value_bytes() / size_of::<Word>(), place.offset / size_of::<Word>());
    let words = old.entries as usize * old.value / size_of::<Word>();
    if record == 0 || !words.is_multiple_of(record * WAYS) {
        return None;
    }
    let words: Mapping<Word> = Mapping::new(old.map.fd(), words as u32).ok()?;
    let controls = words.iter().skip(word).step_by(record);
    Some(controls.filter(|it| Control(it.load()).state().is_live()).count())
}
