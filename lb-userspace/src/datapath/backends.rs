//! Backends, written so that no packet sees a mix of old and new.

use lb_common::{
    backend::{Backend, BackendId, Load},
    cell::{Word, fence},
    ejection::Ejection,
    limits::MAX_PLACES,
    pool::Turn,
};
use lb_ebpf::picker::ejection;

use super::mapping::{Mapped, Mapping};

/// The words of a backend.
const ALL_WORDS: usize = size_of::<Backend>() / size_of::<Word>();
/// Those that the controller writes. The first one holds the id.
const WORDS: usize = ALL_WORDS - size_of::<Load>() / size_of::<Word>();

/// The word whose high half is [`Backend::accepts`].
const ACCEPTS: usize = std::mem::offset_of!(Backend, accepts) / size_of::<Word>();

const _: () = assert!(std::mem::offset_of!(Backend, accepts) % size_of::<Word>() == 4);

/// An element of the `BACKENDS` array.
#[repr(C)]
#[derive(Debug)]
pub struct Element {
    /// Only the controller writes to them.
    words: [Word; WORDS],
    /// CPUs write to it.
    load: Load,
}

// SAFETY: words, and unused words that are never written; two cache lines.
unsafe impl Mapped for Element {}

// SAFETY: words, and unused words that are never written; a cache line.
unsafe impl Mapped for Turn {}

/// The arrays `BACKENDS` and `TURNS`: ejections are counted by pool.
#[derive(Debug)]
pub struct Backends {
    pub elements: Mapping<Element>,
    pub turns: Mapping<Turn>,
}

impl Backends {
    /// Is there a backend with this id?
    pub fn has(&self, id: BackendId) -> bool {
        id != BackendId::NONE && self.get(id).is_some_and(|backend| backend.id == id)
    }

    /// All backends, by place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Backend)> {
        let backends = self.elements.iter().map(read).filter(|backend| backend.id != BackendId::NONE);
        backends.map(|backend| (backend.id.place(MAX_PLACES), backend))
    }

    /// Writes a backend to the place of its id.
    ///
    /// A backend with a different id in this place is deleted before any other word changes. A backend that keeps its
    /// id is changed word by word: its addresses and counters stay, and of all else the old and the new value are both right.
    /// The MTU is written after the rest of the next hop if that is known, and before it if it is not: with an MTU of 0 nothing
    /// is sent.
    ///
    /// A backend that gets no new flows is not ejected: it must not count among those of its pool that are. Nor is one if the pool
    /// has become so small that too many are.
    pub fn put(&self, backend: &Backend) {
        let Some(element) = self.element(backend.id.0) else { return };
        let (cell, words) = (&element.words, words(backend));
        if !self.has(backend.id) {
            self.delete(backend.id.0);
        }
        let mut order: Vec<usize> = (1..WORDS).collect();
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
        fence();
        let turn = self.turns.get(backend.pool.0 as usize);
        let are_too_many = turn.is_some_and(|it| it.ejected.load() > backend.most_ejected.into());
        if backend.accepts == Backend::ACCEPTS_NONE || are_too_many {
            self.end_ejection(element);
        }
    }

    /// Clears a place. The flows of its id are dead.
    pub fn delete(&self, place: u32) {
        let Some(element) = self.element(place) else { return };
        // From now on the program ends an ejection that it began before: see `ejection::failed`.
        let accepts = &element.words[ACCEPTS];
        accepts.store((accepts.load() as u32).into());
        fence();
        self.end_ejection(element);
        for word in element.words.iter().chain([&element.load.flows, &element.load.answered]) {
            word.store(0);
            fence();
        }
    }

    /// Is the backend ejected?
    pub fn is_ejected(&self, id: BackendId) -> bool {
        self.load(id).is_some_and(|load| Ejection(load.ejection.load()).is_ejected())
    }

    /// Ends the ejection of a backend.
    pub fn readmit(&self, id: BackendId) {
        if self.has(id) {
            self.element(id.0).into_iter().for_each(|element| self.end_ejection(element));
        }
    }

    /// Corrects the numbers of ejected backends. They are wrong if a daemon was killed between two writes.
    pub fn count_ejected(&self) {
        let mut ejected = vec![0; self.turns.len()];
        for element in self.elements.iter().filter(|it| Ejection(it.load.ejection.load()).is_ejected()) {
            ejected.get_mut(read(element).pool.0 as usize).into_iter().for_each(|count| *count += 1);
        }
        for (turn, count) in self.turns.iter().zip(ejected) {
            let counted = turn.ejected.load();
            if counted != count {
                turn.ejected.replace(counted, count);
            }
        }
    }

    /// Repeated if a packet changes the ejection at this moment.
    fn end_ejection(&self, element: &Element) {
        while Ejection(element.load.ejection.load()) != Ejection::NONE {
            ejection::end(&element.load, || self.turns.get(read(element).pool.0 as usize));
        }
    }

    /// The load of the backend with this id.
    pub fn load(&self, id: BackendId) -> Option<&Load> {
        self.element(id.0).filter(|_| self.has(id)).map(|element| &element.load)
    }

    fn get(&self, id: BackendId) -> Option<Backend> {
        self.element(id.0).map(read)
    }

    /// The element for an id or a place. Their number is a power of two that divides `MAX_PLACES`, so both lead to the same
    /// one.
    fn element(&self, number: u32) -> Option<&Element> {
        self.elements.get(number as usize % self.elements.len().max(1))
    }
}

fn words(backend: &Backend) -> [u64; ALL_WORDS] {
    // SAFETY: a backend is 128 bytes of integers without padding.
    unsafe { std::mem::transmute::<Backend, [u64; ALL_WORDS]>(*backend) }
}

/// A backend, without its load.
fn read(element: &Element) -> Backend {
    let mut words = [0; ALL_WORDS];
    words.iter_mut().zip(&element.words).for_each(|(word, cell)| *word = cell.load());
    // SAFETY: 128 bytes without padding, and any bytes are a valid backend.
    unsafe { std::mem::transmute::<[u64; ALL_WORDS], Backend>(words) }
}

#[cfg(test)]
mod tests {
    use lb_common::{clock::Ticks, pool::PoolNumber};

    use super::*;

    const POOL: PoolNumber = PoolNumber(1);
    const ONE: BackendId = BackendId(3);
    const OTHER: BackendId = BackendId(4);

    #[test]
    fn a_backend_that_leaves_the_schedule_or_the_maps_is_no_longer_counted_as_ejected() {
        let rests =
            |backends: &Backends| backends.put(&Backend { accepts: Backend::ACCEPTS_NONE, ..backend(ONE) });
        let is_replaced = |backends: &Backends| backends.put(&backend(BackendId(ONE.0 + MAX_PLACES)));
        let is_deleted = |backends: &Backends| backends.delete(ONE.0);
        for leaves in [&rests as &dyn Fn(&Backends), &is_replaced, &is_deleted] {
            let backends = two_ejected();

            leaves(&backends);

            assert!(!backends.is_ejected(ONE) && backends.is_ejected(OTHER));
            assert_eq!(number(&backends), 1);
        }
    }

    #[test]
    fn a_backend_that_stays_in_the_schedule_stays_ejected_until_it_is_readmitted() {
        let backends = two_ejected();
        backends.put(&Backend { accepts: Backend::ACCEPTS_IN_PANIC, ..backend(ONE) });
        assert_eq!((backends.is_ejected(ONE), number(&backends)), (true, 2));

        backends.readmit(ONE);

        assert_eq!((backends.is_ejected(ONE), number(&backends)), (false, 1));
    }

    #[test]
    fn the_number_of_ejected_backends_is_corrected() {
        let backends = two_ejected();
        backends.turns[POOL.0 as usize].ejected.fetch_add(5);

        backends.count_ejected();

        assert_eq!(number(&backends), 2);
    }

    #[test]
    fn in_a_pool_that_has_become_smaller_not_more_than_half_stay_ejected() {
        let backends = two_ejected();

        for id in [ONE, OTHER] {
            backends.put(&Backend { most_ejected: 1, ..backend(id) });
        }

        assert_eq!((backends.is_ejected(ONE), backends.is_ejected(OTHER)), (false, true));
        assert_eq!(number(&backends), 1);
    }

    fn two_ejected() -> Backends {
        let backends = Backends { elements: Mapping::of_zeros(8), turns: Mapping::of_zeros(2) };
        for id in [ONE, OTHER] {
            backends.put(&backend(id));
            let ejected = Ejection::NONE.longer(Ticks(0));
            backends.load(id).unwrap().ejection.store(ejected.0);
        }
        backends.count_ejected();
        backends
    }

    fn number(backends: &Backends) -> u64 {
        backends.turns[POOL.0 as usize].ejected.load()
    }

    fn backend(id: BackendId) -> Backend {
        Backend { id, pool: POOL, accepts: Backend::ACCEPTS, most_ejected: 2, ..Backend::default() }
    }
}
