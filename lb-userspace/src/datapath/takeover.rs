//! What becomes of the maps of the program that runs when this version takes over.
//!
//! | map | becomes |
//! |---|---|
//! | alike | the same map, for the old program and the new one at once |
//! | of another layout | a new map, with the contents of the old one |
//! | flow tables | all maps of a family are kept, or all are new: a flow's record, index and count belong together |

use std::path::{Path, PathBuf};

use super::{
    kernel::{carry, manifest::Manifest},
    layout::MapLayout,
    shapes::{self, MapShape, Purpose},
};

/// What is taken over from the program that runs; nothing, if there is none.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Names of maps that stay.
    kept: Vec<&'static str>,
    /// Maps whose contents go to new ones.
    pub carried: Vec<Carried>,
    /// Names of the flow tables that are given up, and where they are.
    lost: Vec<Carried>,
}

/// A map of the program that runs.
#[derive(Debug)]
pub struct Carried {
    pub name: &'static str,
    pub path: PathBuf,
    pub layout: MapLayout,
}

impl Takeover {
    /// From the program of a manifest.
    pub fn from(manifest: &Manifest, directory: &Path, ours: &[MapShape]) -> Self {
        let is_alike = |shape: &MapShape| {
            manifest
                .map(directory, shape.name)
                .is_some_and(|(_, layout)| shapes::layout(shape.name) == Some(layout))
        };
        let is_whole = |purpose| ours.iter().filter(|it| it.purpose == purpose).all(is_alike);
        let mut takeover = Self::default();
        for shape in ours {
            let is_flows = matches!(shape.purpose, Purpose::FlowsV4 | Purpose::FlowsV6);
            if is_alike(shape) && (!is_flows || is_whole(shape.purpose)) {
                takeover.kept.push(shape.name);
            } else if let Some((path, layout)) = manifest.map(directory, shape.name) {
                let old = Carried { name: shape.name, path, layout: layout.clone() };
                if is_flows { &mut takeover.lost } else { &mut takeover.carried }.push(old);
            }
        }
        takeover
    }

    /// Does the map stay?
    pub fn keeps(&self, map: &str) -> bool {
        self.kept.contains(&map)
    }

    /// One line for each family whose flows are lost.
    pub fn losses(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for (table, family) in [("FLOWS4", "IPv4"), ("FLOWS6", "IPv6")] {
            let Some(lost) = self.lost.iter().find(|it| it.name == table) else { continue };
            let count = carry::count_flows(&lost.path, &lost.layout)?;
            let flows = count
                .map_or_else(|| format!("all {family} flows"), |count| format!("{count} {family} flows"));
            lines.push(format!(
                "the {family} flow table that is pinned is of another layout, or incomplete: {flows} are lost"
            ));
        }
        Ok(lines)
    }
}
