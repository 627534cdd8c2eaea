//! Passive ejection of backends that fail: see [`lb_common::ejection`].
//!
//! A client alone cannot eject a backend that has other new flows. A refusal counts only if it acknowledges the client's SYN,
//! and the backend has answered no client for a second. A SYN that is repeated counts only if the backend has answered no client
//! since the SYN before, a second ago or more. And each answer ends an ejection. At most half of the backends of a pool are
//! ejected at the same time.

use lb_common::{
    backend::{Backend, Load},
    cell::fence,
    clock::Ticks,
    ejection::{Ejection, FAILURES},
    pool::Turn,
};

use crate::storage::Maps;

/// May a new flow get this backend? If it is ejected, one flow may from time to time.
#[inline(always)]
pub fn admits(load: &Load, now: Ticks) -> bool {
    let ejection = Ejection(load.ejection.load());
    if !ejection.is_ejected() {
        return true;
    }
    // Ejected again in advance: only an answer to this flow will show that the backend is back.
    ejection.may_be_probed(now) && load.ejection.replace(ejection.0, ejection.longer(now).0)
}

/// The backend has refused a new flow, or has not answered its SYN.
#[inline(always)]
pub fn failed(maps: &impl Maps, backend: &Backend, load: &Load, now: Ticks) {
    let ejection = Ejection(load.ejection.load());
    if ejection.is_ejected() {
        return;
    }
    let failed = ejection.after_failure();
    if failed.failures() < FAILURES {
        load.ejection.replace(ejection.0, failed.0);
        return;
    }
    let Some(turn) = maps.turn(backend.pool) else { return };
    // Reserved before the backend is ejected, so that two CPUs never eject one backend too many.
    let is_reserved = turn.ejected.fetch_add(1) < u64::from(backend.most_ejected);
    if !is_reserved || !load.ejection.replace(ejection.0, failed.longer(now).0) {
        turn.ejected.fetch_add(1_u64.wrapping_neg());
    }
    fence();
    // The controller takes a backend out of the schedule, and then ends its ejection: perhaps before it began.
    if backend.accepts == Backend::ACCEPTS_NONE {
        end(load, || Some(turn));
    }
}

/// The backend has answered a new flow, or a health check: it is not ejected.
#[inline(always)]
pub fn end<'a>(load: &Load, turn: impl FnOnce() -> Option<&'a Turn>) {
    let ejection = Ejection(load.ejection.load());
    if ejection == Ejection::NONE || !load.ejection.replace(ejection.0, Ejection::NONE.0) {
        return;
    }
    if ejection.is_ejected()
        && let Some(turn) = turn()
    {
        turn.ejected.fetch_add(1_u64.wrapping_neg());
    }
}
