//! Copies the contents of a map to one of another layout, field by field.

use std::{io, path::Path};

use anyhow::Context;
use aya::maps::{MapData, MapInfo};
use lb_common::{
    cell::Word,
    flow::{Control, WAYS},
    layout::{Content, Layout as _},
};

use super::raw;
use crate::datapath::{
    layout::{Conversion, MapLayout},
    mapping::Mapping,
    shapes::{Kind, MapShape},
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
        open().with_context(|| format!("open {}", path.display()))
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

/// Copies all elements. What has no counterpart in the old layout stays as it is in the new map; elements that it has no
/// room for are left out. A hash is left empty if its keys or its values cannot be converted: an element without them
/// would be another one.
pub fn carry(old: (&Path, &MapLayout), new: (&Path, &MapLayout), shape: &MapShape) -> anyhow::Result<()> {
    let ((old_path, old_layout), (new_path, new_layout)) = (old, new);
    let (old, new) = (Bytes::open(old_path)?, Bytes::open(new_path)?);
    let keys = Conversion::between(&old_layout.key, &new_layout.key);
    let values = Conversion::between(&old_layout.value, &new_layout.value);
    let is_hash = shape.kind == Kind::Hash;
    if is_hash && !(keys.is_whole(&new_layout.key) && values.has_any()) {
        log::warn!("{} has a layout that cannot be converted: its contents are lost", shape.name);
        return Ok(());
    }
    let copy = || -> io::Result<()> {
        for (number, old_key) in (0..).zip(old.keys()?) {
            if number >= new.entries {
                log::warn!("{} is too small for its former contents: some are lost", shape.name);
                break;
            }
            let mut key = vec![0; new.key];
            keys.apply(&old_key, &mut key);
            let Some(old_value) = old.lookup(&old_key)? else { continue };
            let before = new.lookup(&key)?;
            let mut value = before.clone().unwrap_or_else(|| vec![0; new.value * new.values]);
            for (old, new) in old_value.chunks(old.value).zip(value.chunks_mut(new.value)) {
                values.apply(old, new);
            }
            if is_hash || before.as_ref() != Some(&value) {
                raw::update(new.map.fd(), &key, &value)?;
            }
        }
        Ok(())
    };
    copy().with_context(|| format!("copy {} to {}", old_path.display(), new_path.display()))
}

/// The only value of a pinned array.
pub fn value(path: &Path) -> anyhow::Result<Vec<u8>> {
    let value = Bytes::open(path)?.lookup(&0_u32.to_ne_bytes());
    value
        .and_then(|value| value.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("read {}", path.display()))
}

/// The only value of an array, converted to this version's layout.
pub fn only_value(old: (&Path, &MapLayout), new: &MapLayout) -> anyhow::Result<Vec<u8>> {
    let (path, layout) = old;
    let old = Bytes::open(path)?;
    let value = old.lookup(&0_u32.to_ne_bytes()).with_context(|| format!("read {}", path.display()))?;
    let mut converted = vec![0; new.value_bytes()];
    Conversion::between(&layout.value, &new.value).apply(&value.unwrap_or_default(), &mut converted);
    Ok(converted)
}

/// How many flows a table of another layout has at most: some may have expired. `None` if it cannot be read.
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
