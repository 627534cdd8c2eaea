//! The layouts of the maps as text: what pins are named after, and what another version reads them by.
//!
//! ```text
//!   SERVICES: hash, key 24, value 8 x 1, flags 0x0, entries 4096
//!     key address 0 16 address
//!     value pool 0 4 u32            name, offset, bytes, what it is
//! ```
//!
//! The hash of a map's text is its version and ends the name of its pin (`SERVICES_5f3a9c21`). The texts are pinned too
//! (`kernel/manifest.rs`), so that a version can read the maps of another one, older or younger.

use std::{fmt, str::FromStr};

use anyhow::{Context, anyhow};
use lb_common::layout::{Content, Type};

/// The layout of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLayout {
    /// As the program calls it.
    pub name: String,
    /// Everything but the fields.
    pub facts: String,
    /// The fields of a key.
    pub key: Vec<Place>,
    /// The fields of a value.
    pub value: Vec<Place>,
}

/// A field, those of nested structs by their full names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `hop.mtu`
    pub name: String,
    /// Bytes before it.
    pub offset: usize,
    /// Its own bytes.
    pub size: usize,
    /// What it is.
    pub what: String,
}

impl MapLayout {
    /// The name of the map's pin.
    pub fn pin_name(&self) -> String {
        format!("{}_{:08x}", self.name, hash(&self.to_string()))
    }

    /// The bytes of one value, or of one of several that lie in a row.
    pub fn value_bytes(&self) -> usize {
        self.value.last().map_or(0, |last| last.offset + last.size)
    }
}

/// Is this the name of a map's pin, of whatever version?
pub fn is_pin_name(name: &str) -> bool {
    name.rsplit_once('_').is_some_and(|(map, hash)| {
        let is_upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        !map.is_empty()
            && map.chars().all(is_upper)
            && hash.len() == 8
            && hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    })
}

/// The fields of a type.
pub fn places(of: &Type) -> Vec<Place> {
    let mut places = Vec::new();
    flatten(of, "", 0, &mut places);
    places
}

fn flatten(of: &Type, path: &str, offset: usize, places: &mut Vec<Place>) {
    let mut plain = |what: String| {
        let name = if path.is_empty() { "itself" } else { path };
        places.push(Place { name: name.to_owned(), offset, size: of.size, what });
    };
    match of.content {
        Content::Plain(what) => plain(what.to_owned()),
        Content::List(what, length) => plain(format!("[{what}; {length}]")),
        Content::Struct(fields) => {
            for field in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&field.content, &format!("{path}{dot}{}", field.name), offset + field.offset, places);
            }
        }
    }
}

impl fmt::Display for MapLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.facts)?;
        for (side, places) in [("key", &self.key), ("value", &self.value)] {
            for Place { name, offset, size, what } in places {
                writeln!(f, "  {side} {name} {offset} {size} {what}")?;
            }
        }
        Ok(())
    }
}

/// Reads the texts of maps, one after another.
pub fn parse(text: &str) -> anyhow::Result<Vec<MapLayout>> {
    let mut maps: Vec<MapLayout> = Vec::new();
    for line in text.lines() {
        let context = || format!("`{line}` is not a line of a layout");
        let Some(field) = line.strip_prefix("  ") else {
            let (name, facts) = line.split_once(": ").with_context(context)?;
            let (name, facts) = (name.to_owned(), facts.to_owned());
            maps.push(MapLayout { name, facts, key: Vec::new(), value: Vec::new() });
            continue;
        };
        let (side, place) = field.split_once(' ').with_context(context)?;
        let place = place.parse().with_context(context)?;
        let map = maps.last_mut().with_context(context)?;
        match side {
            "key" => map.key.push(place),
            "value" => map.value.push(place),
            _ => return Err(anyhow!(context())),
        }
    }
    Ok(maps)
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().context("a word is missing");
        let (name, offset, size) = (word()?.to_owned(), word()?.parse()?, word()?.parse()?);
        Ok(Self { name, offset, size, what: word()?.to_owned() })
    }
}

/// FNV-1a: names need no secrecy, and equal names are compared as texts.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What is copied from values of one layout to those of another: fields with one name, one size and one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion(Vec<Copied>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copied {
    from: usize,
    to: usize,
    size: usize,
}

impl Conversion {
    /// From the fields of an old layout to those of a new one.
    pub fn between(old: &[Place], new: &[Place]) -> Self {
        let copied = new.iter().filter_map(|to| {
            let is_same =
                |from: &&Place| (&from.name, from.size, &from.what) == (&to.name, to.size, &to.what);
            let from = old.iter().find(is_same)?;
            Some(Copied { from: from.offset, to: to.offset, size: to.size })
        });
        Self(copied.collect())
    }

    /// Do all of these new fields have a counterpart?
    pub fn is_whole(&self, new: &[Place]) -> bool {
        self.0.len() == new.len()
    }

    /// Has any field a counterpart?
    pub fn has_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Copies. Bytes of the new value that have no counterpart stay as they are.
    pub fn apply(&self, old: &[u8], new: &mut [u8]) {
        for Copied { from, to, size } in &self.0 {
            let (Some(from), Some(to)) = (old.get(*from..from + size), new.get_mut(*to..to + size)) else {
                continue;
            };
            to.copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        layout::{Layout as _, Type},
        service::ServiceKey,
    };

    use super::*;

    #[test]
    fn a_text_is_read_back_as_it_was_written() {
        let map = MapLayout {
            name: "SERVICES".into(),
            facts: "hash, key 24".into(),
            key: places(&ServiceKey::TYPE),
            value: places(&<[u32; 3]>::TYPE),
        };

        let read = parse(&format!("{map}{map}")).unwrap();

        assert_eq!(read, [map.clone(), map]);
        assert!(parse("  key a 0 4 u32").is_err() && parse("X: y\n  key a 0").is_err());
    }

    #[test]
    fn fields_are_copied_wherever_they_lie_and_others_stay_as_they_were() {
        let old = [place("moved", 0, 4, "u32"), place("removed", 4, 4, "u32"), place("resized", 8, 2, "u16")];
        let new = [
            place("added", 0, 4, "u32"),
            place("resized", 4, 4, "u32"),
            place("moved", 8, 4, "u32"),
            place("removed", 12, 4, "other meaning"),
        ];
        let mut value = [9; 16];

        Conversion::between(&old, &new).apply(&[1, 1, 1, 1, 2, 2, 2, 2, 3, 3], &mut value);

        assert_eq!(value, [9, 9, 9, 9, 9, 9, 9, 9, 1, 1, 1, 1, 9, 9, 9, 9]);
    }

    #[test]
    fn a_value_that_is_shorter_than_its_layout_is_not_read() {
        let mut value = [9; 4];

        Conversion::between(&[place("a", 4, 4, "u32")], &[place("a", 0, 4, "u32")])
            .apply(&[0; 4], &mut value);

        assert_eq!(value, [9; 4]);
    }

    #[test]
    fn a_pin_is_told_by_its_name() {
        let map = MapLayout {
            name: "FLOWS4".into(),
            facts: String::new(),
            key: places(&Type::NOTHING),
            value: vec![],
        };

        assert!(is_pin_name(&map.pin_name()), "{}", map.pin_name());
        for name in ["lb", "link_12345678", "slow_paths_12345678", "FLOWS4", "_12345678", "FLOWS4_1234567g"] {
            assert!(!is_pin_name(name), "{name}");
        }
    }

    fn place(name: &str, offset: usize, size: usize, what: &str) -> Place {
        Place { name: name.into(), offset, size, what: what.into() }
    }
}
