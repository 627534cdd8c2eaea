//! Backends, written so that no packet sees a mix of old and new.

use std::mem::offset_of;

use lb_common::{
    backend::{Backend, BackendId},
    cell::{Word, fence},
    limits::MAX_PLACES,
};

use crate::datapath::mapping::Mapping;

/// The words of a [`Backend`]. The first one holds the id.
const WORDS: usize = size_of::<Backend>() / size_of::<Word>();
/// The words that the controller writes to an existing backend. CPUs write the others.
const CONTROLLER_WORDS: usize = offset_of!(Backend, live) / size_of::<Word>();

/// The `BACKENDS` array. Only the controller writes to it.
pub struct Backends(pub Mapping<[Word; WORDS]>);

impl Backends {
    /// Is there a backend with this id?
    pub fn has(&self, id: BackendId) -> bool {
        id != BackendId::NONE && self.get(id).is_some_and(|backend| backend.id == id)
    }

    /// All backends, by place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Backend)> {
        let backends = self.0.iter().map(read).filter(|backend| backend.id != BackendId::NONE);
        backends.map(|backend| (backend.id.place(MAX_PLACES), backend))
    }

    /// Writes a backend to the place of its id.
    ///
    /// A backend with a different id in this place is deleted before any other word changes. A backend that keeps its
    /// id is changed word by word: only its next hop changes, and the old and the new one are both right. The MTU is
    /// written last if the next hop is known, and first if it is not: with an MTU of 0 nothing is sent.
    pub fn put(&self, backend: &Backend) {
        let Some(cell) = self.cell(backend.id.0) else { return };
        // SAFETY: a backend is 128 bytes of integers without padding.
        let words = unsafe { std::mem::transmute::<Backend, [u64; WORDS]>(*backend) };
        if !self.has(backend.id) {
            cell[0].store(0);
            fence();
            cell[CONTROLLER_WORDS..].iter().for_each(|word| word.store(0));
        }
        let mut order: Vec<usize> = (1..CONTROLLER_WORDS).collect();
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

    /// Clears a place. The flows of its id are dead.
    pub fn delete(&self, place: u32) {
        let Some(cell) = self.cell(place) else { return };
        for word in cell {
            word.store(0);
            fence();
        }
    }

    fn get(&self, id: BackendId) -> Option<Backend> {
        self.cell(id.0).map(read)
    }

    /// The element for an id or a place. Their number is a power of two that divides `MAX_PLACES`, so both lead to the same
    /// one.
    fn cell(&self, number: u32) -> Option<&[Word; WORDS]> {
        self.0.get(number as usize % self.0.len().max(1))
    }
}

fn read(cell: &[Word; WORDS]) -> Backend {
    let words = cell.each_ref().map(Word::load);
    // SAFETY: 128 bytes without padding, and any bytes are a valid backend.
    unsafe { std::mem::transmute::<[u64; WORDS], Backend>(words) }
}
