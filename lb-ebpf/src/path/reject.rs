//! Slow path: a packet that is refused, and whose sender is told so.
//!
//! ```text
//! no_flow,    TCP without SYN ─▶ TCP reset
//! no_flow,    a backend's packet of an ended flow ─▶ TCP reset, ICMP port unreachable
//! no_backend, SYN             ─▶ TCP reset
//! no_backend, datagram        ─▶ ICMP port unreachable
//! ```
//!
//! The packet itself becomes the answer, and leaves by the interface that received it, to the station that sent it: no route
//! is needed. Packets that are refused for other reasons are dropped, because the client's next one may be forwarded.
//!
//! A source address may be forged, so what is sent is limited ([`lb_common::answers`]): in number, and in bytes to the bytes
//! of the packets that are answered. Resets and ICMP are never answered, so two hosts cannot keep each other busy.

use lb_common::{
    answers::{Account, Answers},
    net::Protocol,
    quiet::Quiet,
    reason::Reason,
    service::Reject,
};

use crate::{
    packet::{answer::AnswerFamily, frame::Frame, headers::Ethernet, reset::Reset, unreachable::Unreachable},
    path::pipeline::Verdict,
    path::slow::SlowPaths,
    steps::Steps,
    storage::{Maps, Storage},
    table::first_seen,
    table::scratch::Scratch,
};

/// How often the account is tried while other CPUs change it. A packet that fails is dropped.
const TRIES: u32 = 4;

/// The verdict on the packet in [`Storage::scratch`], which is refused: this path decides, or it is dropped at once.
#[inline(always)]
pub fn refuse<F: SlowPaths>(tables: &impl Storage<F>, reason: Reason) -> Verdict {
    match tables.scratch() {
        Some(flow)
            if may_be_answered(tables, reason) && Reject::from_number(flow.reject.get()) == Reject::Reset =>
        {
            flow.reason.set(reason as u32);
            Verdict::Continue(F::REJECT)
        }
        Some(_) | None => Verdict::Refused(reason),
    }
}

/// While another node may know the flow of a packet, only silence keeps it alive.
#[inline(always)]
fn may_be_answered(maps: &impl Maps, reason: Reason) -> bool {
    let is_silent = Quiet::from_number(maps.settings().quiet) == Quiet::Always;
    reason == Reason::NoBackend || reason == Reason::NoFlow && !is_silent
}

/// Answers the packet in [`Storage::scratch`], or drops it.
#[inline(always)]
pub fn run<F: AnswerFamily>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    let Some(flow) = tables.scratch() else { return Verdict::Refused(Reason::Internal) };
    let reason = Reason::from_number(flow.reason.get().into());
    match answer(frame, tables, flow, reason) {
        Some(()) => Verdict::Rejected(reason),
        None => Verdict::Refused(reason),
    }
}

/// `None`: there is no answer.
#[inline(always)]
fn answer<F: AnswerFamily>(
    frame: &mut impl Frame,
    tables: &impl Steps<F>,
    flow: &Scratch<F>,
    reason: Reason,
) -> Option<()> {
    let (tuple, layout) = (flow.tuple.get(), flow.layout.get());
    if !F::is_of_station(tuple.source) || tuple.source == tuple.destination || !is_between_stations(frame) {
        return None;
    }
    if reason == Reason::NoFlow && !first_seen::may_be_told(tables, &tuple) {
        return None;
    }
    if tuple.protocol == Protocol::Tcp as u32 {
        let reset = Reset::for_frame::<F>(frame, &layout)?;
        spend(tables, layout.frame, Reset::frame_bytes::<F>())?;
        tables.trace_rejected(reason);
        reset.write(frame, &layout, &tuple)
    } else {
        let unreachable = Unreachable::for_frame::<F>(frame, &layout)?;
        spend(tables, layout.frame, unreachable.frame_bytes::<F>())?;
        tables.trace_rejected(reason);
        unreachable.write(frame, &layout, &tuple)
    }
}

/// Was the frame sent by one station to one station? A broadcast has no single sender to answer (RFC 1122, 3.2.2).
#[inline(always)]
fn is_between_stations(frame: &mut impl Frame) -> bool {
    let mut cursor = frame.cursor();
    cursor.take::<Ethernet>().is_ok_and(|it| it.source().is_unicast() && it.destination().is_unicast())
}

/// Enters an answer into the account. `None`: it must not be sent.
#[inline(always)]
fn spend(maps: &impl Maps, received_bytes: u32, sent_bytes: u32) -> Option<()> {
    let (word, now) = (maps.answers()?, maps.now());
    let mut tries = 0;
    while tries < TRIES {
        let before = Answers(word.load());
        match before.account(now, received_bytes, sent_bytes) {
            Account::Exhausted => return None,
            Account::Saved(after) => {
                if word.replace(before.0, after.0) {
                    return None;
                }
            }
            Account::Spent(after) => {
                if word.replace(before.0, after.0) {
                    return Some(());
                }
            }
        }
        tries += 1;
    }
    None
}
