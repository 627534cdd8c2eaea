//! Preempts a CPU before selected accesses to shared memory, while other CPUs continue.
//!
//! A hypervisor may preempt a CPU between any two instructions, for any length of time. Here everything runs on one
//! thread: what the other CPUs do meanwhile is a function call between two accesses, so that each preemption point can
//! be tested.

extern crate std;

use std::{boxed::Box, cell::RefCell, thread_local, vec::Vec};

/// The number of accesses before the pause, counted from the previous pause, and what happens during it.
pub type Pause = (usize, Box<dyn FnOnce()>);

thread_local! {
    /// In reverse order: the next pause is the last element.
    static PAUSES: RefCell<Vec<Pause>> = const { RefCell::new(Vec::new()) };
}

/// Runs a function on this thread with these pauses, in order. Returns how many pauses were not reached.
pub fn with_pauses<R>(mut pauses: Vec<Pause>, run: impl FnOnce() -> R) -> (R, usize) {
    pauses.reverse();
    PAUSES.set(pauses);
    let result = run();
    (result, PAUSES.take().len())
}

pub(super) fn access() {
    let due = PAUSES.with_borrow_mut(|pauses| match pauses.last_mut() {
        Some((0, _)) => pauses.pop(),
        Some((left, _)) => {
            *left -= 1;
            None
        }
        None => None,
    });
    let Some((_, meanwhile)) = due else { return };
    // There are no pauses inside a pause.
    let later = PAUSES.take();
    meanwhile();
    PAUSES.set(later);
}
