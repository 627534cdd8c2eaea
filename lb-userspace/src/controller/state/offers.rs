//! Until when a backend could be given new flows.
//!
//! A backend may get a flow while the slots of a pool name it, and for a grace period after: a packet that is under way
//! may still be reading slots that were in force.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::datapath::{Op, Snapshot};

/// By backend id. Ids that were in no slot have had no flow.
#[derive(Clone, Debug, Default)]
pub struct Offers(BTreeMap<u32, Offer>);

#[derive(Clone, Copy, Debug)]
enum Offer {
    InForce,
    EndedAt(Instant),
}

impl Offers {
    /// Takes over from the maps: what is in no slot in force may have been in one a moment ago.
    pub fn adopt(&mut self, have: &Snapshot, now: Instant) {
        self.0 = have.backends.values().map(|backend| (backend.id, Offer::EndedAt(now))).collect();
        for pool in have.pools.keys() {
            self.put(have.offered(*pool), Offer::InForce);
        }
    }

    /// A step is taken from what the maps have.
    pub fn applying(&mut self, op: &Op, have: &Snapshot, now: Instant) {
        if let Some((number, after)) = op.pool_change() {
            self.put(have.offered(number), Offer::EndedAt(now));
            self.put(have.ids(after), Offer::InForce);
        }
        if let Op::DeleteBackend(slot) = op
            && let Some(backend) = have.backends.get(slot)
        {
            self.0.remove(&backend.id);
        }
    }

    /// At this moment, were all flows in the table that the backend can have?
    pub fn are_over(&self, id: u32, at: Instant, grace: Duration) -> bool {
        match self.0.get(&id) {
            Some(Offer::InForce) => false,
            Some(Offer::EndedAt(ended)) => at >= *ended + grace,
            None => true,
        }
    }

    fn put(&mut self, ids: &[u32], offer: Offer) {
        self.0.extend(ids.iter().map(|id| (*id, offer)));
    }
}
