//! Until when a backend can get new flows.
//!
//! A backend can get flows while a pool's slots hold its id, and for a moment after that: packets in flight may still read
//! the former slots.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::backend::BackendId;

use crate::datapath::{Op, Snapshot};

/// A generous bound on how long a packet in flight may still create a flow. It affects only when a backend is reported
/// as drained, never when memory is reused.
pub const IN_FLIGHT: Duration = Duration::from_secs(1);

/// By backend id. Ids without an entry have never been in a slot.
#[derive(Clone, Debug, Default)]
pub struct Offers(BTreeMap<BackendId, Offer>);

#[derive(Clone, Copy, Debug)]
enum Offer {
    InForce,
    EndedAt(Instant),
}

impl Offers {
    /// Takes over from the maps: ids that are in no active slot may have been in one a moment ago.
    pub fn adopt(&mut self, have: &Snapshot, now: Instant) {
        self.0 = have.backends.values().map(|backend| (backend.id, Offer::EndedAt(now))).collect();
        for pool in have.pools.keys() {
            self.put(have.offered(*pool), Offer::InForce);
        }
    }

    /// Before an operation is applied to `have`.
    pub fn applying(&mut self, op: &Op, have: &Snapshot, now: Instant) {
        if let Some((number, after)) = op.pool_change() {
            self.put(have.offered(number), Offer::EndedAt(now));
            self.put(have.ids(after), Offer::InForce);
        }
        if let Op::DeleteBackend(place) = op
            && let Some(backend) = have.backends.get(place)
        {
            self.0.remove(&backend.id);
        }
    }

    /// Could the backend get no more flows at `at`, so that all of its flows were in the table by then?
    pub fn are_over(&self, id: BackendId, at: Instant) -> bool {
        match self.0.get(&id) {
            Some(Offer::InForce) => false,
            Some(Offer::EndedAt(ended)) => at >= *ended + IN_FLIGHT,
            None => true,
        }
    }

    fn put(&mut self, ids: &[BackendId], offer: Offer) {
        // A large table names each backend many times. Most repetitions are noticed here, for less than a search of the map.
        let mut seen = [BackendId::NONE; 1024];
        for id in ids {
            let last = &mut seen[id.0 as usize % seen.len()];
            if *last != *id {
                *last = *id;
                self.0.insert(*id, offer);
            }
        }
    }
}
