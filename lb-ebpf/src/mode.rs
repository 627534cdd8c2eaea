//! Modes: which client address a backend sees. Each has a file, and a line in each of the functions below.

mod full_nat;
mod nat;

use lb_common::{net::Be16, reason::Reason, service::Mode};

use crate::{
    family::Family,
    storage::Maps,
    table::{reply_index::Holders, scratch::Scratch},
};

/// How a new flow of this mode searches for a free reply tuple.
pub struct Search {
    /// The flows from which each probe may evict a reply tuple.
    pub evict: Holders,
    /// Does each probe try another backend? Otherwise it tries another source.
    pub takes_another_backend: bool,
    /// The reason if all probes found a tuple in use.
    pub exhausted: Reason,
}

/// How flows of this mode search.
#[inline(always)]
pub const fn search(mode: Mode) -> Search {
    match mode {
        Mode::FullNat => full_nat::SEARCH,
        Mode::Nat => nat::SEARCH,
    }
}

/// Can this backend serve this client?
#[inline(always)]
pub fn can_serve<F: Family>(mode: Mode, client: F::Address, backend: F::Address) -> bool {
    match mode {
        Mode::FullNat => true,
        Mode::Nat => nat::can_serve::<F>(client, backend),
    }
}

/// The source address and port that the backend sees, for this probe.
#[inline(always)]
pub fn source<F: Family>(
    maps: &impl Maps,
    mode: Mode,
    flow: &Scratch<F>,
    probe: u32,
) -> Result<(F::Address, Be16), Reason> {
    match mode {
        Mode::FullNat => full_nat::source(maps, flow, probe),
        Mode::Nat => Ok(nat::source(&flow.tuple.get())),
    }
}
