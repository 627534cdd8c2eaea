//! Modes: what a backend sees of a client. One file each, and a line in each of the functions below.

mod full_nat;
mod nat;

use lb_common::{net::Be16, reason::Reason, service::Mode};

use crate::{
    family::Family,
    storage::Maps,
    table::{reply_index::Holders, scratch::Scratch},
};

/// How a new flow of a mode looks for a reply tuple that no other flow has.
pub struct Search {
    /// Whose reply tuple it takes at once.
    pub evict: Holders,
    /// Does each probe take the next slot? Else it takes another source.
    pub takes_next_slot: bool,
    /// All probes found a tuple in use.
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

/// The address and port that the backend sees as the client, at this probe.
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
