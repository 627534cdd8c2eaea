//! The slots of a pool: which backends get new flows, in which order.
//!
//! | scheduler | slots built by | picker |
//! |---|---|---|
//! | `round-robin` | one slot for each backend, in the order of the file | turn |
//! | `weighted-round-robin` | [`smooth`] | turn |
//! | `least-connections` | as for `round-robin` | least of all |
//! | `random-two` | [`smooth`] | least of two |
//! | `source-hash` | [`maglev`] | hash of the client's address |
//! | `maglev` | [`maglev`] | hash of the tuple |
//!
//! The builders know nothing of health: an entry is an id, an address and an effective weight.

mod maglev;
mod smooth;

use std::net::SocketAddr;

use lb_common::{backend::BackendId, pool::Picker};

use crate::{hash_key::HashKey, spec::Scheduler};

/// A backend that may get new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: BackendId,
    /// Its identity, which is the same on all nodes.
    pub address: SocketAddr,
    /// Above 0.
    pub weight: u32,
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

/// The ids in the slots, one for each slot.
pub fn slots(scheduler: Scheduler, entries: &[Entry], key: &HashKey) -> Vec<BackendId> {
    match scheduler {
        Scheduler::RoundRobin | Scheduler::LeastConnections => entries.iter().map(|entry| entry.id).collect(),
        Scheduler::WeightedRoundRobin | Scheduler::RandomTwo => smooth::slots(entries),
        Scheduler::SourceHash | Scheduler::Maglev => maglev::slots(entries, key),
    }
}
