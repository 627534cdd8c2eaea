//! Handles of the pinned maps and of the program. They keep an object alive whose pin was removed, so that it can be
//! pinned again.

use std::{fmt, path::Path};

use anyhow::Context;
use aya::maps::MapData;

use super::load::Program;
use crate::datapath::{layout::MapLayout, pins, shapes};

/// The program, and every pinned map by the name of its pin. This includes the manifest, and the array of slow paths,
/// which the kernel empties when its last handle and pin are gone.
pub struct Handles {
    program: Program,
    maps: Vec<(String, MapData)>,
}

impl Handles {
    /// Opens the maps that are pinned in a directory.
    pub fn open(directory: &Path, mut program: Program) -> anyhow::Result<Self> {
        let open = |name: String| {
            let map =
                MapData::from_pin(directory.join(&name)).with_context(|| format!("cannot open {name}"))?;
            Ok((name, map))
        };
        let id = program.id()?;
        let names = shapes::layouts().iter().map(MapLayout::pin_name);
        let names = names.chain([pins::slow_paths_name(id), pins::manifest_name(id)]);
        let maps = names.map(open).collect::<anyhow::Result<_>>()?;
        Ok(Self { program, maps })
    }

    /// The names of the pins of the maps and the program.
    pub fn pin_names(&self) -> Vec<String> {
        self.maps.iter().map(|(name, _)| name.clone()).chain([pins::PROGRAM.to_owned()]).collect()
    }

    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Pins again what is missing in a directory. Returns the names of those pins.
    pub fn pin_missing(&mut self, directory: &Path) -> anyhow::Result<Vec<String>> {
        let mut made = Vec::new();
        for (name, map) in &self.maps {
            let path = directory.join(name);
            if !path.exists() {
                map.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
                made.push(name.clone());
            }
        }
        let path = directory.join(pins::PROGRAM);
        if !path.exists() {
            self.program.xdp()?.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
            made.push(pins::PROGRAM.to_owned());
        }
        Ok(made)
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("program", &self.program).finish_non_exhaustive()
    }
}
