//! Takes over from xlb 0.1.0, whose maps have no manifest.
//!
//! It pins everything in the directory `v3`, each map by its plain name. Its layouts are listed here, so that its
//! contents are copied like those of any other version. Maps that are not listed are not copied: flows are lost, and
//! the daemon fills the others.
//!
//! | map | what continues |
//! |---|---|
//! | `SETTINGS` | the next backend id |
//! | `SERVICES`, `BACKENDS` | which services and backends there are, their ids, health and next hops |
//! | `BACKEND_NAMES`, `SERVICE_NAMES`, and four maps of counters | the counters of each name, reason and interface |

use std::path::Path;

use anyhow::Context as _;
use aya::maps::MapInfo;
use lb_common::limits::Room;

use super::{layout, shapes, takeover::Carried};

/// What the numbers of its services and backends need: up to 512 services, and 4,096 places for backends.
const SERVICES: u32 = 512;
const BACKENDS: u32 = 2048;

/// The layouts of the maps whose contents are copied, as far as they are copied.
const LAYOUTS: &str = "\
SETTINGS: Array, key 4, value 104, flags 0x0, entries 1
  key itself 0 4 u32
  value next_backend_id 96 4 u32
SERVICES: Hash, key 24, value 8, flags 0x0, entries 4096
  key address 0 16 address
  key port 16 2 be16
  key protocol 18 1 u8
  key zero 19 1 u8
  key rest 20 4 u32
  value pool 0 4 u32
  value counters 4 4 u32
BACKENDS: Array, key 4, value 64, flags 0x400, entries 4096
  key itself 0 4 u32
  value id 0 4 u32
  value counters 4 4 u32
  value service_counters 8 4 u32
  value accepts 12 4 u32
  value address 16 16 address
  value port 32 2 be16
  value hop.destination 40 6 mac
  value hop.source 46 6 mac
  value hop.interface 52 4 u32
  value hop.mtu 56 4 u32
BACKEND_COUNTERS: PerCpuArray, key 4, value 40, flags 0x0, entries 4096
  key itself 0 4 u32
  value forwarded.packets 0 8 u64
  value forwarded.bytes 8 8 u64
  value returned.packets 16 8 u64
  value returned.bytes 24 8 u64
  value new_flows 32 8 u64
SERVICE_COUNTERS: PerCpuArray, key 4, value 16, flags 0x0, entries 512
  key itself 0 4 u32
  value refused.packets 0 8 u64
  value refused.bytes 8 8 u64
REASONS: PerCpuArray, key 4, value 16, flags 0x0, entries 64
  key itself 0 4 u32
  value packets 0 8 u64
  value bytes 8 8 u64
ACTIONS: PerCpuArray, key 4, value 32, flags 0x0, entries 4096
  key itself 0 4 u32
  value passed 0 8 u64
  value dropped 8 8 u64
  value transmitted 16 8 u64
  value redirected 24 8 u64
BACKEND_NAMES: Hash, key 4, value 128, flags 0x0, entries 4096
  key itself 0 4 u32
  value itself 0 128 [u8; 128]
SERVICE_NAMES: Hash, key 4, value 128, flags 0x0, entries 512
  key itself 0 4 u32
  value itself 0 128 [u8; 128]
";

/// The maps of 0.1.0 in its directory of pins. `None` if the directory is not of 0.1.0, or if a map is missing or
/// differs.
pub fn maps(directory: &Path) -> anyhow::Result<Option<Vec<Carried>>> {
    if !directory.ends_with("v3") {
        return Ok(None);
    }
    let mut maps = Vec::new();
    for layout in layout::parse(LAYOUTS)? {
        let path = directory.join(&layout.name);
        let ours =
            shapes::layout(&layout.name).with_context(|| format!("there is no map {}", layout.name))?;
        if !path.exists() || facts(&path)? != layout.facts {
            return Ok(None);
        }
        maps.push(Carried { name: &ours.name, path, layout });
    }
    Ok(Some(maps))
}

/// The room that its services and backends need, or more.
pub fn room(asked: Room) -> Room {
    let (services, backends) = (asked.services.max(SERVICES), asked.backends.max(BACKENDS));
    Room { services, backends, ..asked }
}

/// What the kernel knows of a pinned map, as in [`LAYOUTS`].
fn facts(path: &Path) -> anyhow::Result<String> {
    let read = || -> anyhow::Result<String> {
        let info = MapInfo::from_pin(path)?;
        Ok(format!(
            "{:?}, key {}, value {}, flags {:#x}, entries {}",
            info.map_type()?,
            info.key_size(),
            info.value_size(),
            info.map_flags(),
            info.max_entries()
        ))
    };
    read().with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::layout::Conversion;

    #[test]
    fn each_field_that_is_listed_has_a_counterpart_in_this_version() {
        for old in layout::parse(LAYOUTS).unwrap() {
            let new = shapes::layout(&old.name).unwrap();
            for (from, to) in [(&old.key, &new.key), (&old.value, &new.value)] {
                for field in from {
                    let field = std::slice::from_ref(field);
                    assert!(Conversion::between(field, to).has_any(), "{}: {field:?}", old.name);
                }
            }
            assert!(Conversion::between(&old.key, &new.key).is_whole(&new.key), "{}", old.name);
        }
    }
}
