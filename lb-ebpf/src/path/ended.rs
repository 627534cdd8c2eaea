//! Slow path: a backend's packet of a flow that the controller has ended, or is about to end.
//!
//! ```text
//! maint, removal, on_down ─▶ the backend's id is not in the maps: its flows end at once ─▶ a sweep marks their records ENDED
//! xlb flow remove ───────────────────────────────────────────────────────────────────────▶ marks their records ENDED
//! ```
//!
//! Either way the packet is refused for the flow's service ([`super::reject`] tells the backend), but not for longer than the
//! flow could have been idle. Then, or when another flow has taken the record, the packet is passed to the host.

use lb_common::{
    cell::fence,
    clock::{Age, Ticks},
    flow::{Control, State},
    reason::Reason,
};

use crate::{
    packet::{frame::Frame, parse::Packet},
    path::{
        classify,
        pipeline::Verdict,
        reject,
        slow::{SlowPath, SlowPaths},
    },
    steps::Steps,
    table::record::{self, Found},
};

/// Writes the input of this path.
#[inline(always)]
pub fn prepare<F: SlowPaths>(
    tables: &impl Steps<F>,
    packet: &Packet<F>,
    found: &Found<'_, F>,
) -> Result<SlowPath, Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    flow.tuple.set(packet.tuple);
    flow.layout.set(packet.layout);
    flow.record.set(found.index);
    flow.control.set(found.control.0);
    Ok(F::ENDED)
}

/// Refuses the reply in [`Storage::scratch`](crate::storage::Storage::scratch), or passes it to the host.
#[inline(always)]
pub fn run<F: SlowPaths>(_frame: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    match find_service(tables) {
        Ok(()) => reject::refuse(tables, Reason::NoFlow),
        Err(reason) => Verdict::Refused(reason),
    }
}

/// Finds the service of the reply's flow, and counts the reply as refused.
#[inline(always)]
fn find_service<F: SlowPaths>(tables: &impl Steps<F>) -> Result<(), Reason> {
    let flow = tables.scratch().ok_or(Reason::Internal)?;
    let Found { record, .. } = record::by_index::<F>(tables, flow.record.get())?;
    let (request, seen) = (record::request_of::<F>(record), Ticks(record.last_seen.load()));
    fence();
    let owner = Control(record.control.load());
    let is_of_flow = owner.generation() == Control(flow.control.get()).generation();
    let longest = State::ESTABLISHED.timeout(request.protocol as u8);
    if !is_of_flow || Age::new(tables.now(), seen).is_over(longest) {
        return Err(Reason::NotService);
    }
    let service = classify::listening::<F>(tables, &request).ok_or(Reason::NotService)?;
    flow.reject.set(service.reject);
    tables.count_refused(service.counters, flow.layout.get().frame.into());
    Ok(())
}
