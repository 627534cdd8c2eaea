//! Past counts of names that lost their counter number.
//!
//! A name's counters never decrease. The program counts by number. When a number loses its name (a backend is
//! removed, a service is renamed), its counts are added to those kept for the name, and a backend or service that
//! gets the name again continues from there. The counters of a service include those of removed backends.
//!
//! They are kept in a pinned map that only the daemon uses, and last as long as the counters.

use std::collections::BTreeMap;

use lb_common::{
    counters::{BackendCounters, ServiceCounters, Tally},
    fields,
};

use super::names::Record;

/// The name of the map.
pub const MAP: &str = "PAST";

/// The key of the map: a name in the encoding of [`names`](super::names).
pub type Key = Record;

/// The counts of one name, and the value of the map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Of a backend; for a service, of its backends that no longer have an entry.
    pub backend: BackendCounters,
    /// Packets for a service that were not forwarded.
    pub refused: Tally,
    /// New flows of a service whose clients another backend had refused.
    pub retried_flows: u64,
}

fields!(Counted { backend, refused, retried_flows });

/// The entries by name: `SERVICE` or `SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq)]
pub struct PastCounters {
    entries: BTreeMap<String, Counted>,
    /// At this number of entries, unused names are dropped. The entries above it are reserved for services that take
    /// over the counts of their backends.
    soft_limit: usize,
}

/// A write to the map. Counts are put under a new name before the old one is deleted, so that none is lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Put(String, Counted),
    Delete(String),
}

impl PastCounters {
    /// `room`: the maximum number of names in the map.
    pub fn new(entries: BTreeMap<String, Counted>, room: u32) -> Self {
        Self { entries, soft_limit: room as usize / 4 * 3 }
    }

    pub fn set_entries(&mut self, entries: BTreeMap<String, Counted>) {
        self.entries = entries;
    }

    pub fn entries(&self) -> &BTreeMap<String, Counted> {
        &self.entries
    }

    /// Adds the counts of a name that loses its number. Returns the writes to the map.
    pub fn keep(&mut self, name: &str, counted: Counted, is_in_use: impl Fn(&str) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        if counted == Counted::default() {
            return changes;
        }
        if !self.entries.contains_key(name) && self.entries.len() >= self.soft_limit {
            changes.extend(self.make_room(is_in_use));
        }
        changes.push(self.add(name, counted));
        changes
    }

    /// Drops an unused name. The counts of a backend go to its service; those of a removed service are lost.
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
        kept.add(&counted);
        Change::Put(name.to_owned(), *kept)
    }
}

/// Counters wrap around.
pub trait Sum {
    /// Adds another count.
    fn add(&mut self, counted: &Self);
}

impl Sum for Tally {
    fn add(&mut self, counted: &Self) {
        self.packets = self.packets.wrapping_add(counted.packets);
        self.bytes = self.bytes.wrapping_add(counted.bytes);
    }
}

impl Sum for Counted {
    fn add(&mut self, counted: &Self) {
        self.backend.add(&counted.backend);
        self.refused.add(&counted.refused);
        self.retried_flows = self.retried_flows.wrapping_add(counted.retried_flows);
    }
}

impl From<ServiceCounters> for Counted {
    fn from(counters: ServiceCounters) -> Self {
        let ServiceCounters { refused, retried_flows } = counters;
        Self { refused, retried_flows, ..Self::default() }
    }
}

impl Sum for BackendCounters {
    fn add(&mut self, counted: &Self) {
        self.forwarded.add(&counted.forwarded);
        self.returned.add(&counted.returned);
        self.new_flows = self.new_flows.wrapping_add(counted.new_flows);
        self.refused = self.refused.wrapping_add(counted.refused);
        self.unanswered = self.unanswered.wrapping_add(counted.unanswered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u32 = 4096;

    #[test]
    fn counts_of_one_name_add_up() {
        let mut past = PastCounters::new(BTreeMap::new(), ROOM);

        past.keep("web/web-1", flows(3), |_| false);
        let changes = past.keep("web/web-1", flows(4), |_| false);

        assert_eq!(changes, [Change::Put("web/web-1".into(), flows(7))]);
        assert_eq!(past.keep("web/web-2", flows(0), |_| false), []);
    }

    #[test]
    fn when_nearly_full_unused_backends_are_added_to_their_service_and_unused_services_dropped() {
        let mut past = PastCounters::new(BTreeMap::new(), ROOM);
        let is_in_use = |name: &str| name == "web" || name == "web/b0000";
        past.keep("old", flows(1), is_in_use);
        past.keep("old/b0000", flows(1), is_in_use);
        for n in 0..2 * ROOM {
            past.keep(&format!("web/b{n:04}"), flows(1), is_in_use);
        }

        assert!(past.entries().len() <= past.soft_limit + 1, "{} entries", past.entries().len());
        let sum: u64 = past.entries().values().map(|it| it.backend.new_flows).sum();
        assert_eq!(sum, u64::from(2 * ROOM));
        assert_eq!(past.entries()["web/b0000"], flows(1));
        assert!(!past.entries().contains_key("old"));
    }

    fn flows(new_flows: u64) -> Counted {
        Counted { backend: BackendCounters { new_flows, ..Default::default() }, ..Default::default() }
    }
}
