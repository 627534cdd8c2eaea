//! The layouts of the maps as text. Pins are named after them, and other versions read the maps by them.
//!
//! ```text
//!   SERVICES: hash, key 24, value 8 x 1, flags 0x0, entries 4096
//!     key address 0 16 address
//!   value pool 0 4 u32            name, offset, bytes, type
//! ```
//!
//! The hash of a map's text is its version and the end of its pin's name (`SERVICES_5f3a9c21`). The texts are pinned
//! too (`kernel/manifest.rs`), so that a version can read the maps of an older or newer one.

use std::{fmt, str::FromStr};

use anyhow::{Context, anyhow};
use lb_common::layout::{Content, Type};

/// The layout of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLayout {
    /// The map's name in the program.
    pub name: String,
    /// Everything except the fields.
    pub facts: String,
    /// The fields of a key.
    pub key: Vec<FieldLayout>,
    /// The fields of a value.
    pub value: Vec<FieldLayout>,
}

/// A field. A nested one has its full path as name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// For example `hop.mtu`.
    pub name: String,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Its type.
    pub what: String,
}

impl MapLayout {
    /// The name of the map's pin.
    pub fn pin_name(&self) -> String {
        format!("{}_{:08x}", self.name, hash(&self.to_string()))
    }

    /// The size of a value, or of one CPU's value in a per-CPU map.
    pub fn value_bytes(&self) -> usize {
        self.value.last().map_or(0, |last| last.offset + last.size)
    }
}

/// Is this the name of a map's pin, in any version?
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
pub fn fields(of: &Type) -> Vec<FieldLayout> {
    let mut fields = Vec::new();
    flatten(of, "", 0, &mut fields);
    fields
}

fn flatten(of: &Type, path: &str, offset: usize, fields: &mut Vec<FieldLayout>) {
    let mut plain = |what: String| {
        let name = if path.is_empty() { "itself" } else { path };
        fields.push(FieldLayout { name: name.to_owned(), offset, size: of.size, what });
    };
    match of.content {
        Content::Plain(what) => plain(what.to_owned()),
        Content::List(what, length) => plain(format!("[{what}; {length}]")),
        Content::Struct(members) => {
            for field in members {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&field.content, &format!("{path}{dot}{}", field.name), offset + field.offset, fields);
            }
        }
    }
}

impl fmt::Display for MapLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.facts)?;
        for (side, fields) in [("key", &self.key), ("value", &self.value)] {
            for FieldLayout { name, offset, size, what } in fields {
                writeln!(f, "  {side} {name} {offset} {size} {what}")?;
            }
        }
        Ok(())
    }
}

/// Parses the layouts of several maps.
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

impl FromStr for FieldLayout {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().context("a word is missing");
        let (name, offset, size) = (word()?.to_owned(), word()?.parse()?, word()?.parse()?);
        Ok(Self { name, offset, size, what: word()?.to_owned() })
    }
}

/// FNV-1a: the names need no cryptographic hash, and the texts are compared as well.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// How to copy a value to a different layout: fields with the same name, size and type.
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
    pub fn between(old: &[FieldLayout], new: &[FieldLayout]) -> Self {
        let copied = new.iter().filter_map(|to| {
            let is_same =
                |from: &&FieldLayout| (&from.name, from.size, &from.what) == (&to.name, to.size, &to.what);
            let from = old.iter().find(is_same)?;
            Some(Copied { from: from.offset, to: to.offset, size: to.size })
        });
        Self(copied.collect())
    }

    /// Do all of these new fields have a counterpart?
    pub fn is_whole(&self, new: &[FieldLayout]) -> bool {
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
    fn a_layout_survives_the_round_trip_through_text() {
        let map = MapLayout {
            name: "SERVICES".into(),
            facts: "hash, key 24".into(),
            key: fields(&ServiceKey::TYPE),
            value: fields(&<[u32; 3]>::TYPE),
        };

        let read = parse(&format!("{map}{map}")).unwrap();

        assert_eq!(read, [map.clone(), map]);
        assert!(parse("  key a 0 4 u32").is_err() && parse("X: y\n  key a 0").is_err());
    }

    #[test]
    fn equal_fields_are_copied_and_others_stay_unchanged() {
        let old = [field("moved", 0, 4, "u32"), field("removed", 4, 4, "u32"), field("resized", 8, 2, "u16")];
        let new = [
            field("added", 0, 4, "u32"),
            field("resized", 4, 4, "u32"),
            field("moved", 8, 4, "u32"),
            field("removed", 12, 4, "other meaning"),
        ];
        let mut value = [9; 16];

        Conversion::between(&old, &new).apply(&[1, 1, 1, 1, 2, 2, 2, 2, 3, 3], &mut value);

        assert_eq!(value, [9, 9, 9, 9, 9, 9, 9, 9, 1, 1, 1, 1, 9, 9, 9, 9]);
    }

    #[test]
    fn a_value_shorter_than_its_layout_is_not_read() {
        let mut value = [9; 4];

        Conversion::between(&[field("a", 4, 4, "u32")], &[field("a", 0, 4, "u32")])
            .apply(&[0; 4], &mut value);

        assert_eq!(value, [9; 4]);
    }

    #[test]
    fn pins_are_recognised_by_name() {
        let map = MapLayout {
            name: "FLOWS4".into(),
            facts: String::new(),
            key: fields(&Type::NOTHING),
            value: vec![],
        };

        assert!(is_pin_name(&map.pin_name()), "{}", map.pin_name());
        for name in ["lb", "link_12345678", "slow_paths_12345678", "FLOWS4", "_12345678", "FLOWS4_1234567g"] {
            assert!(!is_pin_name(name), "{name}");
        }
    }

    fn field(name: &str, offset: usize, size: usize, what: &str) -> FieldLayout {
        FieldLayout { name: name.into(), offset, size, what: what.into() }
    }
}
