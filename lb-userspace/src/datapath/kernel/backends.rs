//! Backends, written so that no packet sees one half as it was and half as it will be.

use std::mem::offset_of;

use lb_common::{
    backend::Backend,
    cell::{Word, fence},
    limits::MAX_PLACES,
};

use crate::datapath::mapping::Mapping;

/// The words of a [`Backend`]: the id lies in the first.
const WORDS: usize = size_of::<Backend>() / size_of::<Word>();
/// Those that the controller writes to a backend that is there. The others are left to the CPUs.
const OURS: usize = offset_of!(Backend, live) / size_of::<Word>();

/// The `BACKENDS` array. Only the controller writes to it.
pub struct Backends(pub Mapping<[Word; WORDS]>);

impl Backends {
    /// Does this id answer for its flows?
    pub fn has(&self, id: u32) -> bool {
        id != 0 && self.get(id).is_some_and(|backend| backend.id == id)
    }

    /// All that are there, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Backend)> {
        let backends = self.0.iter().map(read).filter(|backend| backend.id != 0);
        backends.map(|backend| (backend.id % MAX_PLACES, backend))
    }

    /// Puts a backend into the slot of its id.
    ///
    /// One with another id that lay there stops answering before any of its words change. A backend that keeps its id is
    /// changed word by word: what changes then is the next hop, and the former and the new one are both right. The MTU is
    /// written last where the next hop is known, and first where it is not: with an MTU of 0 nothing is sent.
    pub fn put(&self, backend: &Backend) {
        let Some(cell) = self.cell(backend.id) else { return };
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
        let Some(cell) = self.cell(slot) else { return };
        for word in cell {
            word.store(0);
            fence();
        }
    }

    fn get(&self, id: u32) -> Option<Backend> {
        self.cell(id).map(read)
    }

    /// The place of an id: there is a power of two of them.
    fn cell(&self, id: u32) -> Option<&[Word; WORDS]> {
        self.0.get(id as usize % self.0.len().max(1))
    }
}

fn read(cell: &[Word; WORDS]) -> Backend {
    let words = cell.each_ref().map(Word::load);
    // SAFETY: 128 bytes without padding, and any integers are a backend.
    unsafe { std::mem::transmute::<[u64; WORDS], Backend>(words) }
}
