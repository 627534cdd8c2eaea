//! nat: the backend sees the client's own address and port. Its route to the client leads through xlb.

use lb_common::{net::Be16, reason::Reason};

use super::Search;
use crate::{
    family::{Family, Tuple},
    table::reply_index::Holders,
};

/// Each probe tries another backend, because the client's port is kept.
///
/// The reply tuple can only be held by a flow of the same client port. If that is closed, the new SYN also ends the
/// backend's TIME-WAIT (RFC 6191).
pub const SEARCH: Search =
    Search { evict: Holders::CLOSED, takes_another_backend: true, exhausted: Reason::TupleInUse };

/// A client that is also a backend cannot serve itself: it would receive packets from its own address.
#[inline(always)]
pub fn can_serve<F: Family>(client: F::Address, backend: F::Address) -> bool {
    client != backend
}

/// The client's own.
#[inline(always)]
pub fn source<F: Family>(tuple: &Tuple<F>) -> (F::Address, Be16) {
    (tuple.source, tuple.ports.source())
}
