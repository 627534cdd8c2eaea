//! Backends, written so that no packet sees one half as it was and half as it will be.

use std::{io, mem::offset_of};

use aya::maps::MapData;
use lb_common::{
    backend::Backend,
    cell::{Word, fence},
    limits::MAX_BACKENDS,
};

use crate::datapath::mapping::Mapping;

/// The words of a [`Backend`]: the id lies in the first.
const WORDS: usize = size_of::<Backend>() / size_of::<Word>();
/// Those that the controller writes to a backend that is there. The others are left to the CPUs.
const OURS: usize = offset_of!(Backend, live) / size_of::<Word>();

/// The `BACKENDS` array. Only the controller writes to it.
pub struct Backends(Mapping<[Word; WORDS]>);

impl Backends {
    pub fn new(map: &MapData) -> io::Result<Self> {
        Mapping::new(map.fd(), MAX_BACKENDS).map(Self)
    }

    /// Does this id answer for its flows?
    pub fn has(&self, id: u32) -> bool {
        id != 0 && self.get(id % MAX_BACKENDS).is_some_and(|backend| backend.id == id)
    }

    /// All that are there, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Backend)> {
        let backends = (0..MAX_BACKENDS).filter_map(|slot| Some((slot, self.get(slot)?)));
        backends.filter(|(_, backend)| backend.id != 0)
    }

    /// Puts a backend into the slot of its id.
    ///
    /// One with another id that lay there stops answering before any of its words change. A backend that keeps its id is
    /// changed word by word: what changes then is the next hop, and the former and the new one are both right. The MTU is
    /// written last where the next hop is known, and first where it is not: with an MTU of 0 nothing is sent.
    pub fn put(&self, backend: &Backend) {
        let Some(cell) = self.0.get((backend.id % MAX_BACKENDS) as usize) else { return };
        // SAFETY: a backend is 128 bytes of integers without padding.
        let words = unsafe { std::mem::transmute::<Backend, [u64; WORDS]>(*backend) };
        if !self.has(backend.id) {
            cell[0].store(0);
            fence();
            cell[OURS..].iter().for_each(|word| word.store(0));
        }
        let mut order: Vec<usize> = (1..OURS).collect();
        if backend.hop.mtu == 0 {
            order.reverse();
        }
        for index in order {
            if cell[index].load() != words[index] {
                cell[index].store(words[index]);
                fence();
            }
        }
        cell[0].store(words[0]);
    }

    /// Empties a slot: the flows of its id are dead.
    pub fn delete(&self, slot: u32) {
        let Some(cell) = self.0.get(slot as usize) else { return };
        for word in cell {
            word.store(0);
            fence();
        }
    }

    fn get(&self, slot: u32) -> Option<Backend> {
        let words = self.0.get(slot as usize)?.each_ref().map(Word::load);
        // SAFETY: 128 bytes without padding, and any integers are a backend.
        Some(unsafe { std::mem::transmute::<[u64; WORDS], Backend>(words) })
    }
}
