//! What happens to the maps of the running program when this version takes over.
//!
//! | map | result |
//! |---|---|
//! | of the same layout | the map is kept, and the old program and the new one use it at once |
//! | of a different layout | a new map, with the contents of the old one (a ring buffer: none) |
//! | flow tables | all maps of a family are kept, or all are new: a flow's record, index and count belong together. They are new if the hash keys cannot be kept, because no flow would be found |

use std::path::{Path, PathBuf};

use super::{
    kernel::{carry, manifest::Manifest},
    layout::MapLayout,
    shapes::{self, Kind, MapShape, Purpose},
};
use crate::text::counted;

/// The flow tables, and the map of their records.
const FAMILIES: [(Purpose, &str, &str); 2] =
    [(Purpose::FlowsV4, "IPv4", "FLOWS4"), (Purpose::FlowsV6, "IPv6", "FLOWS6")];

/// What is taken over from the running program, if there is one.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Names of maps that are kept.
    kept: Vec<&'static str>,
    /// Maps whose contents are copied to new ones.
    pub carried: Vec<Carried>,
    /// Families whose flows are lost, and the table of their records, if it is pinned.
    lost: Vec<(&'static str, Option<Carried>)>,
}

/// A map of the running program.
#[derive(Debug)]
pub struct Carried {
    pub name: &'static str,
    pub path: PathBuf,
    pub layout: MapLayout,
}

impl Takeover {
    /// From the manifest of the running program. `has_keys`: the keys of its flow hash can be taken over. Without them no
    /// flow is found.
    pub fn from(manifest: &Manifest, directory: &Path, ours: &[MapShape], has_keys: bool) -> Self {
        let is_alike = |shape: &MapShape| {
            manifest
                .map(directory, shape.name)
                .is_some_and(|(_, layout)| shapes::layout(shape.name) == Some(layout))
        };
        let is_whole = |purpose| has_keys && ours.iter().filter(|it| it.purpose == purpose).all(is_alike);
        let old = |name| {
            let (path, layout) = manifest.map(directory, name)?;
            Some(Carried { name, path, layout: layout.clone() })
        };
        let mut takeover = Self::default();
        for shape in ours {
            if is_alike(shape) && (!shape.is_of_flows() || is_whole(shape.purpose)) {
                takeover.kept.push(shape.name);
            } else if !shape.is_of_flows() && shape.kind != Kind::RingBuf {
                takeover.carried.extend(old(shape.name));
            }
        }
        for (purpose, family, records) in FAMILIES {
            if !is_whole(purpose) {
                takeover.lost.push((family, old(records)));
            }
        }
        takeover
    }

    /// New maps, with the contents of these ones.
    pub fn of_contents(carried: Vec<Carried>) -> Self {
        Self { carried, ..Self::default() }
    }

    /// Is the map kept?
    pub fn keeps(&self, map: &str) -> bool {
        self.kept.contains(&map)
    }

    /// How many families of flows and how many maps are kept.
    pub fn extent(&self) -> (usize, usize) {
        (FAMILIES.len() - self.lost.len(), self.kept.len())
    }

    /// One line for each family whose flows are lost.
    pub fn losses(&self) -> Vec<String> {
        let line = |(family, records): &(&str, Option<Carried>)| {
            let count = records.as_ref().and_then(|it| carry::count_flows(&it.path, &it.layout));
            let lost = match count {
                Some(count) => format!("at most {} lost", counted(count as u64, &format!("{family} flow"))),
                None => format!("all {family} flows are lost"),
            };
            format!("the pinned {family} flow table has a different layout or is incomplete: {lost}")
        };
        self.lost.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::datapath::shapes::Sizes;

    #[test]
    fn one_changed_fact_replaces_its_map_or_the_maps_of_its_family_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let ours = shapes::pinned(&Sizes::default());
        let pin = |layout: &MapLayout| fs::write(directory.path().join(layout.pin_name()), "").unwrap();
        shapes::layouts().iter().for_each(pin);

        for shape in &ours {
            for other in with_one_fact_changed(shapes::layout(shape.name).unwrap()) {
                pin(&other);
                let maps = shapes::layouts().iter().map(|it| if it.name == other.name { &other } else { it });
                let manifest = Manifest { program: 7, maps: maps.cloned().collect() };

                let takeover = Takeover::from(&manifest, directory.path(), &ours, true);

                let is_flows = shape.is_of_flows();
                let is_replaced =
                    |it: &MapShape| it.name == shape.name || is_flows && it.purpose == shape.purpose;
                let kept: BTreeSet<_> = takeover.kept.iter().copied().collect();
                let expected = ours.iter().filter(|it| !is_replaced(it)).map(|it| it.name).collect();
                assert_eq!(kept, expected, "{other}");
                assert_eq!(takeover.losses().len(), usize::from(is_flows), "{other}");
                let carried: Vec<_> = takeover.carried.iter().map(|it| it.name).collect();
                let is_carried = !is_flows && shape.kind != Kind::RingBuf;
                assert_eq!(carried, if is_carried { vec![shape.name] } else { vec![] }, "{other}");
            }
        }
    }

    /// Type, key, value, flags, entries, and for flows what else their positions depend on.
    fn with_one_fact_changed(layout: &MapLayout) -> Vec<MapLayout> {
        let facts: Vec<&str> = layout.facts.split(", ").collect();
        let changed = |changed: usize| {
            let facts = (0..).zip(&facts);
            let facts = facts.map(|(fact, text)| format!("{text}{}", if fact == changed { "0" } else { "" }));
            MapLayout { facts: facts.collect::<Vec<_>>().join(", "), ..layout.clone() }
        };
        (0..facts.len()).map(changed).collect()
    }
}
