//! What was counted under names by numbers that have other names now, or none.
//!
//! A name's counters never fall. The program counts by number; when a number loses its name (a backend leaves, a service
//! is renamed), what it counted is added to what is kept for the name, and a backend or service that comes back under
//! that name goes on from there. The sums of a service hold all that its backends counted, those that left included.
//!
//! It lies in a pinned map that only the controller knows, and lives as long as the counters do.

use std::collections::BTreeMap;

use lb_common::{
    counters::{BackendCounters, Tally},
    fields,
};

use super::names::Record;

/// The map.
pub const MAP: &str = "PAST";

/// The map's key, a name of [`names`](super::names).
pub type Key = Record;

/// What was counted under one name: the map's value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Of a backend, or of a service's backends whose own entries were given up.
    pub backend: BackendCounters,
    /// Of a service.
    pub refused: Tally,
}

fields!(Counted { backend, refused });

/// The entries, by name: `SERVICE` or `SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    entries: BTreeMap<String, Counted>,
    /// From here on, names that are not in use make room. What is left is for services that take over from their backends.
    crowded: usize,
}

/// What is to be written, in this order: what is there twice for a moment is better than what is not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Put(String, Counted),
    Delete(String),
}

impl Past {
    /// `room`: how many names the map has room for.
    pub fn new(entries: BTreeMap<String, Counted>, room: u32) -> Self {
        Self { entries, crowded: room as usize / 4 * 3 }
    }

    pub fn set_entries(&mut self, entries: BTreeMap<String, Counted>) {
        self.entries = entries;
    }

    pub fn entries(&self) -> &BTreeMap<String, Counted> {
        &self.entries
    }

    /// The name loses its number, which had counted so much. Returns what changes.
    pub fn keep(&mut self, name: &str, counted: Counted, is_in_use: impl Fn(&str) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        if counted == Counted::default() {
            return changes;
        }
        if !self.entries.contains_key(name) && self.entries.len() >= self.crowded {
            changes.extend(self.make_room(is_in_use));
        }
        changes.push(self.add(name, counted));
        changes
    }

    /// Gives up a name that is not in use: a backend's counts go to its service, those of a service that has left are
    /// forgotten.
    fn make_room(&mut self, is_in_use: impl Fn(&str) -> bool) -> Vec<Change> {
        let Some(name) = self.entries.keys().find(|name| !is_in_use(name)).cloned() else {
            return Vec::new();
        };
        let counted = self.entries.remove(&name).unwrap_or_default();
        let service = name.split_once('/').map(|(service, _)| service).filter(|service| is_in_use(service));
        let moved = service.map(|service| self.add(service, counted));
        moved.into_iter().chain([Change::Delete(name)]).collect()
    }

    fn add(&mut self, name: &str, counted: Counted) -> Change {
        let kept = self.entries.entry(name.to_owned()).or_default();
        kept.backend.add(&counted.backend);
        kept.refused.add(&counted.refused);
        Change::Put(name.to_owned(), *kept)
    }
}

/// Counters wrap rather than stop.
pub trait Sum {
    /// Adds what was counted elsewhere.
    fn add(&mut self, counted: &Self);
}

impl Sum for Tally {
    fn add(&mut self, counted: &Self) {
        self.packets = self.packets.wrapping_add(counted.packets);
        self.bytes = self.bytes.wrapping_add(counted.bytes);
    }
}

impl Sum for BackendCounters {
    fn add(&mut self, counted: &Self) {
        self.forwarded.add(&counted.forwarded);
        self.returned.add(&counted.returned);
        self.new_flows = self.new_flows.wrapping_add(counted.new_flows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u32 = 4096;

    #[test]
    fn a_name_that_loses_its_number_again_has_the_sum() {
        let mut past = Past::new(BTreeMap::new(), ROOM);

        past.keep("web/web-1", flows(3), |_| false);
        let changes = past.keep("web/web-1", flows(4), |_| false);

        assert_eq!(changes, [Change::Put("web/web-1".into(), flows(7))]);
        assert_eq!(past.keep("web/web-2", flows(0), |_| false), []);
    }

    #[test]
    fn where_it_is_crowded_backends_that_left_are_summed_up_and_services_that_left_forgotten() {
        let mut past = Past::new(BTreeMap::new(), ROOM);
        let is_in_use = |name: &str| name == "web" || name == "web/b0000";
        past.keep("old", flows(1), is_in_use);
        past.keep("old/b0000", flows(1), is_in_use);
        for n in 0..2 * ROOM {
            past.keep(&format!("web/b{n:04}"), flows(1), is_in_use);
        }

        assert!(past.entries().len() <= past.crowded + 1, "{} entries", past.entries().len());
        let sum: u64 = past.entries().values().map(|it| it.backend.new_flows).sum();
        assert_eq!(sum, u64::from(2 * ROOM));
        assert_eq!(past.entries()["web/b0000"], flows(1));
        assert!(!past.entries().contains_key("old"));
    }

    fn flows(new_flows: u64) -> Counted {
        Counted { backend: BackendCounters { new_flows, ..Default::default() }, refused: Tally::default() }
    }
}
