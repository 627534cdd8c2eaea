//! The layouts of a program's maps, pinned with it as `layouts_<id of the program>`.
//!
//! The links show which program runs. Its manifest lists which of the pinned maps it uses, and how to read them. So
//! replacing the program of a link switches to the new maps, and anything else that an interrupted start has pinned
//! is unused.
//!
//! The map is an array with one value: the text of [`layout`], padded with zeros. Every version must be able to read
//! it from any other, so this format never changes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use aya::maps::{MapData, MapInfo};

use super::raw;
use crate::datapath::{
    layout::{self, MapLayout},
    pins,
    shapes::{self, Kind},
};

/// A program and its maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub program: u32,
    pub maps: Vec<MapLayout>,
}

impl Manifest {
    /// Reads the manifest of a program, if it is pinned.
    pub fn read(directory: &Path, program: u32) -> anyhow::Result<Option<Self>> {
        let path = directory.join(pins::manifest_name(program));
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> anyhow::Result<Self> {
            let bytes = MapInfo::from_pin(&path)?.value_size();
            let map = MapData::from_pin(&path)?;
            let mut text = vec![0; bytes as usize];
            raw::lookup(map.fd(), &0_u32.to_ne_bytes(), &mut text)?;
            text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
            Ok(Self { program, maps: layout::parse(std::str::from_utf8(&text)?)? })
        };
        read().map(Some).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The pin of a map, and its layout.
    pub fn map(&self, directory: &Path, name: &str) -> Option<(PathBuf, &MapLayout)> {
        let layout = self.maps.iter().find(|layout| layout.name == name)?;
        let path = directory.join(layout.pin_name());
        path.exists().then_some((path, layout))
    }
}

/// Pins the manifest of a program of this version.
pub fn pin(directory: &Path, program: u32) -> anyhow::Result<()> {
    let text: String = shapes::layouts().iter().map(MapLayout::to_string).collect();
    let path = directory.join(pins::manifest_name(program));
    // A stale one: the kernel has reused the program id.
    pins::remove_file(&path)?;
    let write = || -> anyhow::Result<()> {
        let map = aya_obj::Map::new_from_params(Kind::Array as u32, 4, text.len() as u32, 1, 0);
        let map = MapData::create(map, "layouts", None)?;
        raw::update(map.fd(), &0_u32.to_ne_bytes(), text.as_bytes())?;
        Ok(map.pin(&path)?)
    };
    write().with_context(|| format!("cannot pin {}", path.display()))
}
