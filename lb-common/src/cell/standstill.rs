//! A CPU that stands still before some of its accesses of shared memory, while others go on.
//!
//! Nothing says for how long: a hypervisor may take a CPU away between any two instructions. On one thread, what happens
//! meanwhile is a call between two accesses, and every place for it can be tried in turn.

extern crate std;

use std::{boxed::Box, cell::RefCell, thread_local, vec::Vec};

/// How many accesses come first, counted from the pause before, and what happens then.
pub type Pause = (usize, Box<dyn FnOnce()>);

thread_local! {
    /// The next one last.
    static PAUSES: RefCell<Vec<Pause>> = const { RefCell::new(Vec::new()) };
}

/// Runs something on this thread, with pauses in their order. Returns how many were not reached, and did not happen.
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
    // It has accesses of its own, before which nobody stands still.
    let later = PAUSES.take();
    meanwhile();
    PAUSES.set(later);
}
