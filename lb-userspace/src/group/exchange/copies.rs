//! The copies: flows in this node's tables that belong to peers.
//!
//! A flow belongs to the node that saw its last packet. That node tells the others of it. So a copy is not sent on; once a packet
//! has come here, it is no copy any more.

use std::collections::{BTreeMap, HashMap};

use lb_common::{clock::Ticks, flow::FlowId};

use crate::group::port::PeerNumber;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Copies {
    by_record: HashMap<u32, Copied>,
    counts: BTreeMap<PeerNumber, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Copied {
    generation: u32,
    origin: Origin,
    /// When its last packet was seen, as far as is known from its owner.
    seen: Ticks,
}

/// Whose flow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The peer that mentioned it last, and in which of its rounds.
    Peer(PeerNumber, u64),
    /// It was there when the daemon started, or its owner has lost its tables, and no peer has mentioned it since.
    Unknown,
}

impl Copies {
    /// A flow belongs to another node, which saw its last packet then.
    pub fn put(&mut self, id: FlowId, origin: Origin, seen: Ticks) {
        let before = self.by_record.insert(key(id), Copied { generation: id.generation(), origin, seen });
        self.count(before.map(|it| it.origin), Some(origin));
    }

    /// It belongs to this node, or has ended. Returns whether it was a copy.
    pub fn remove(&mut self, id: FlowId) -> bool {
        let Some(copied) = self.get(id) else { return false };
        self.by_record.remove(&key(id));
        self.count(Some(copied.origin), None);
        true
    }

    /// Is the flow, whose last packet was seen then, another node's?
    pub fn has(&self, id: FlowId, seen: Ticks) -> bool {
        self.get(id).is_some_and(|copied| copied.seen == seen)
    }

    /// How many are this peer's.
    pub fn of(&self, peer: PeerNumber) -> u64 {
        self.counts.get(&peer).copied().unwrap_or_default()
    }

    /// Takes out those that `is_lost` selects by their origin.
    pub fn take(&mut self, is_lost: impl Fn(Origin) -> bool) -> Vec<(FlowId, Ticks)> {
        let lost: Vec<_> = self.by_record.extract_if(|_, copied| is_lost(copied.origin)).collect();
        lost.iter().for_each(|(_, copied)| self.count(Some(copied.origin), None));
        let id = |key: u32, generation: u32| FlowId(u64::from(generation) << 32 | u64::from(key));
        lost.into_iter().map(|(key, copied)| (id(key, copied.generation), copied.seen)).collect()
    }

    /// The copies of a peer become unknown. Returns whether there are any.
    pub fn disown(&mut self, peer: PeerNumber) -> bool {
        for copied in self.by_record.values_mut() {
            if matches!(copied.origin, Origin::Peer(of, _) if of == peer) {
                copied.origin = Origin::Unknown;
            }
        }
        self.counts.remove(&peer).is_some_and(|count| count > 0)
    }

    fn get(&self, id: FlowId) -> Option<Copied> {
        self.by_record.get(&key(id)).filter(|copied| copied.generation == id.generation()).copied()
    }

    fn count(&mut self, before: Option<Origin>, after: Option<Origin>) {
        if let Some(Origin::Peer(peer, _)) = before {
            *self.counts.entry(peer).or_default() -= 1;
        }
        if let Some(Origin::Peer(peer, _)) = after {
            *self.counts.entry(peer).or_default() += 1;
        }
    }
}

/// The record and its family.
const fn key(id: FlowId) -> u32 {
    id.0 as u32
}
