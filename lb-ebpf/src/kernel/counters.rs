//! Per-CPU counters.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lb_common::{
    counters::{ActionCounters, BackendCounters, BackendNumber, ServiceCounters, ServiceNumber, Tally},
    hop::InterfaceIndex,
    reason::{Action, Reason},
};

use super::{maps, slow_paths, trace};
use crate::path::pipeline::Verdict;

/// Counts one packet.
#[inline(always)]
pub fn add(tally: &mut Tally, bytes: u64) {
    tally.packets += 1;
    tally.bytes += bytes;
}

/// Changes a backend's counters.
#[inline(always)]
pub fn backend(number: BackendNumber, change: impl FnOnce(&mut BackendCounters)) {
    if let Some(counters) = maps::BACKEND_COUNTERS.get_ptr_mut(number.0) {
        // SAFETY: this CPU's own element, and a run is not interrupted by another on the same CPU.
        change(unsafe { &mut *counters });
    }
}

/// Changes a service's counters.
#[inline(always)]
pub fn service(number: ServiceNumber, change: impl FnOnce(&mut ServiceCounters)) {
    if let Some(counters) = maps::SERVICE_COUNTERS.get_ptr_mut(number.0) {
        // SAFETY: as above.
        change(unsafe { &mut *counters });
    }
}

#[inline(always)]
fn action(ingress: InterfaceIndex, change: impl FnOnce(&mut ActionCounters)) {
    if let Some(counters) = maps::ACTIONS.get_ptr_mut(ingress.0) {
        // SAFETY: as above.
        change(unsafe { &mut *counters });
    }
}

#[inline(always)]
fn count_reason(reason: Reason, bytes: u64) {
    if let Some(tally) = maps::REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: as above.
        add(unsafe { &mut *tally }, bytes);
    }
}

#[inline(always)]
fn refuse(ctx: &XdpContext, ingress: InterfaceIndex, reason: Reason, bytes: u64) -> u32 {
    trace::refused(ctx, reason);
    count_reason(reason, bytes);
    match reason.action() {
        Action::Pass => {
            action(ingress, |counters| counters.passed += 1);
            xdp_action::XDP_PASS
        }
        Action::Drop => {
            action(ingress, |counters| counters.dropped += 1);
            xdp_action::XDP_DROP
        }
    }
}

/// Counts a verdict, and returns the XDP action.
#[inline(always)]
pub fn record(verdict: Verdict, ctx: &XdpContext, ingress: InterfaceIndex, bytes: u64) -> u32 {
    match verdict {
        Verdict::Continue(path) => {
            slow_paths::go(ctx, path);
            refuse(ctx, ingress, Reason::Internal, bytes)
        }
        Verdict::Transmit => {
            action(ingress, |counters| counters.transmitted += 1);
            xdp_action::XDP_TX
        }
        Verdict::Redirect(interface) => {
            match maps::DEVICES.redirect(interface.0, u64::from(xdp_action::XDP_DROP)) {
                Ok(redirect) => {
                    action(ingress, |counters| counters.redirected += 1);
                    redirect
                }
                Err(_) => refuse(ctx, ingress, Reason::RedirectFailed, bytes),
            }
        }
        Verdict::Refused(reason) => refuse(ctx, ingress, reason, bytes),
        Verdict::Rejected(reason) => {
            count_reason(reason, bytes);
            action(ingress, |counters| counters.rejected += 1);
            xdp_action::XDP_TX
        }
    }
}
