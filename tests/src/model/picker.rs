//! How a new connection gets its backend.

use lb_common::pool::Picker;
use lb_ebpf::table::hash::reduce;

use super::Model;
use crate::{rows::scheduling::source_hash, world::HASH_KEYS};

impl Model {
    /// The backend that the picker chooses, by its place among those that accept.
    pub(super) fn first(&mut self, number: usize, accepting: &[usize], counted_at: Option<usize>) -> usize {
        let (count, client) = (accepting.len(), self.dialogue(number as u16));
        let place = |hash: u64, count: usize| reduce(hash as u32, count as u32) as usize;
        let turn = self.turn % count;
        self.turn += 1;
        match self.pool.picker {
            Picker::Turn => turn,
            Picker::SourceHash => place(source_hash(client.client.ip()), count),
            Picker::FlowHash => place(client.hash_by(&HASH_KEYS), count),
            Picker::LeastOfAll => {
                self.least(accepting, (0..count).map(|step| (turn + step) % count), 1, counted_at)
            }
            Picker::LeastOfTwo => {
                let first = place(client.hash(), count);
                let second = (first + 1 + place(client.hash() >> 32, count - 1)) % count;
                self.least(accepting, [first, second].into_iter(), 0, counted_at)
            }
        }
    }

    /// Of these places, the first one whose backend has room and the fewest flows for its weight.
    fn least(
        &self,
        accepting: &[usize],
        places: impl Iterator<Item = usize> + Clone,
        added: usize,
        counted_at: Option<usize>,
    ) -> usize {
        let flows = |backend| self.flows(backend) + usize::from(counted_at == Some(backend));
        let weight = |place: &usize| self.pool.weights[accepting[*place] % self.pool.weights.len()] as usize;
        let has_room = |backend| self.pool.max_flows == 0 || flows(backend) < self.pool.max_flows as usize;
        let mut with_room = places.clone().filter(|place| has_room(accepting[*place]));
        let flows = |place: &usize| flows(accepting[*place]) + added;
        let first = with_room.next().or(places.clone().next()).unwrap_or_default();
        with_room.fold(first, |best, place| {
            if flows(&place) * weight(&best) < flows(&best) * weight(&place) { place } else { best }
        })
    }
}
