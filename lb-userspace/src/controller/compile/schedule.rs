//! The slots of a pool: which backends get new flows, in which order.
//!
//! | scheduler | slots built by | picker |
//! |---|---|---|
//! | `round-robin`, `weighted-round-robin` | [`smooth`] | turn |
//! | `least-connections` | one slot for each backend, in the order of the file | least of all |
//! | `random-two` | [`smooth`] | least of two |
//! | `source-hash` | [`maglev`] | hash of the client's address |
//! | `maglev` | [`maglev`] | hash of the tuple |
//!
//! The builders know nothing of health and of slow starts: an entry is an id, an address and an effective weight.

mod maglev;
mod smooth;

use std::net::SocketAddr;

use lb_common::{backend::BackendId, limits::MAX_MEMBERS, pool::Picker};

use crate::{
    controller::state::Part,
    hash_key::HashKey,
    spec::{Backend, Scheduler, Service, ShareFlows},
};

/// A backend that may get new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: BackendId,
    /// Its identity, which is the same on all nodes.
    pub address: SocketAddr,
    /// Its effective weight in tenths, 1 to 10,000: the part that counts of the weight that the scheduler uses.
    pub weight: u32,
}

impl Entry {
    pub fn new(id: BackendId, backend: &Backend, scheduler: Scheduler, part: Part) -> Self {
        let weight = match scheduler {
            // It ignores weights, but not that a backend comes up.
            Scheduler::RoundRobin => part.tenths,
            Scheduler::WeightedRoundRobin
            | Scheduler::LeastConnections
            | Scheduler::RandomTwo
            | Scheduler::SourceHash
            | Scheduler::Maglev => part.of(backend.weight),
        };
        Self { id, address: backend.address, weight }
    }
}

/// The eligible backends of a service in one family.
#[derive(Default)]
pub struct Eligible {
    regular: Vec<Entry>,
    backup: Vec<Entry>,
}

impl Eligible {
    pub fn add(&mut self, entry: Entry, is_backup: bool) {
        let list = if is_backup { &mut self.backup } else { &mut self.regular };
        list.push(entry);
    }

    /// For the slots that are computed: a backend counts with its weight, unless its service shares all flows.
    pub fn add_if_computed(&mut self, service: &Service, backend: &Backend, id: BackendId) {
        if service.share_flows == ShareFlows::Exceptions && backend.weight > 0 {
            let entry = Entry::new(id, backend, service.scheduler, Part::ALL);
            self.add(entry, backend.backup);
        }
    }

    /// Backups only if there is no other.
    pub fn in_force(self) -> Vec<Entry> {
        if self.regular.is_empty() { self.backup } else { self.regular }
    }
}

/// How the program chooses among the slots.
pub const fn picker(scheduler: Scheduler) -> Picker {
    match scheduler {
        Scheduler::RoundRobin | Scheduler::WeightedRoundRobin => Picker::Turn,
        Scheduler::LeastConnections => Picker::LeastOfAll,
        Scheduler::RandomTwo => Picker::LeastOfTwo,
        Scheduler::SourceHash => Picker::SourceHash,
        Scheduler::Maglev => Picker::FlowHash,
    }
}

/// The members of the pool: each backend once, in the order of the file. Of too many, some that are spread evenly.
pub fn members(entries: &[Entry]) -> Vec<BackendId> {
    let count = entries.len().min(MAX_MEMBERS);
    (0..count).map(|place| entries[place * entries.len() / count].id).collect()
}

/// The ids in the slots, one for each slot.
pub fn slots(scheduler: Scheduler, entries: &[Entry], key: &HashKey) -> Vec<BackendId> {
    match scheduler {
        Scheduler::LeastConnections => entries.iter().map(|entry| entry.id).collect(),
        Scheduler::RoundRobin | Scheduler::WeightedRoundRobin | Scheduler::RandomTwo => {
            smooth::slots(entries)
        }
        Scheduler::SourceHash | Scheduler::Maglev => maglev::slots(entries, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_a_member_and_of_too_many_some_that_are_spread_evenly() {
        for count in [1, 62, 63, 64, 127, 1000] {
            let entry = |id| Entry { id: BackendId(id), address: ([10, 0, 0, 1], 80).into(), weight: 1 };
            let entries: Vec<_> = (1..=count).map(entry).collect();

            let members: Vec<u32> = members(&entries).iter().map(|id| id.0).collect();

            assert_eq!(members.len(), MAX_MEMBERS.min(count as usize));
            let gaps: Vec<u32> = members.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let even = count / MAX_MEMBERS as u32;
            assert!(
                members[0] == 1 && gaps.iter().all(|gap| (even.max(1)..=even + 1).contains(gap)),
                "{gaps:?}"
            );
            assert!(members.last().is_some_and(|last| last + even.max(1) >= count), "{members:?}");
        }
    }
}
