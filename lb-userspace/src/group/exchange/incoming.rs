//! What peers send: their flows become copies, and end when they end there.

use std::time::Instant;

use lb_common::{clock::Ticks, flow::FlowId};
use log::warn;

use super::{BOTH, Exchange, LEARNING, LEARNING_MAX, Moment, TAKE_OVER_SKEW, copies::Origin, peer::Peer};
use crate::{
    datapath::{Adopted, Ending, FlowEvents, Placement, Reading, SharedFlow},
    duration,
    group::{
        port::PeerNumber,
        skip::Skip,
        wire::{Flow, Frame, Round},
    },
    named::Named as _,
};

impl<E: FlowEvents> Exchange<E> {
    pub(super) fn receive(&mut self, peer: PeerNumber, frame: Frame, now: Moment) {
        self.peers[peer.0].heard = Some(now.instant);
        if let Some(hello) = &frame.hello {
            self.peers[peer.0].meet(hello);
        }
        if frame.round == Some(Round::Begin as i32) {
            self.peers[peer.0].subscription.begin_round();
        }
        for flow in &frame.ended {
            self.end(peer, flow, now);
        }
        for flow in &frame.flows {
            self.adopt_or_count(peer, flow, now);
        }
        self.peers[peer.0].received += frame.flows.len() as u64;
        self.peers[peer.0].ended += frame.ended.len() as u64;
        if frame.round == Some(Round::End as i32) {
            self.end_round(peer, now);
        }
        let is_complete = frame.services_end;
        if self.peers[peer.0].subscription.collect(frame.services, is_complete) {
            self.compare_services(peer.0, now.instant);
        }
    }

    fn adopt_or_count(&mut self, peer: PeerNumber, flow: &Flow, now: Moment) {
        if let Err(skip) = self.adopt(peer, flow, now) {
            let it = &mut self.peers[peer.0];
            *it.skipped.entry(skip.name()).or_default() += 1;
            if skip.may_pass() {
                it.subscription.keep(flow);
            }
        }
    }

    /// Writes a peer's flow into the tables. It is a copy, unless this node has seen a packet of it at the same time or later.
    fn adopt(&mut self, peer: PeerNumber, flow: &Flow, now: Moment) -> Result<(), Skip> {
        let flow = SharedFlow::try_from(flow).map_err(|_| Skip::Malformed)?;
        let took_over = self.took_over.get(&(flow.listen, flow.protocol));
        let seen_before = took_over.map(|at| at.earlier_by(TAKE_OVER_SKEW));
        let place = Placement { seen_before, ..self.view.place(&flow)? };
        let Adopted { id, seen, seen_here } = self.tables.adopt(&flow, &place, now.ticks)?;
        let is_copy = seen_here.is_none_or(|here| {
            let later = seen.0.wrapping_sub(here.0).cast_signed();
            self.copies.has(id, here) || later > BOTH.0.cast_signed()
        });
        if is_copy {
            let round = self.peers[peer.0].subscription.round();
            self.copies.put(id, Origin::Peer(peer, round), seen);
        } else {
            self.copies.remove(id);
        }
        Ok(())
    }

    fn end(&mut self, peer: PeerNumber, flow: &Flow, now: Moment) {
        let ending = flow.ending();
        let Ok(flow) = SharedFlow::try_from(flow) else {
            *self.peers[peer.0].skipped.entry(Skip::Malformed.name()).or_default() += 1;
            return;
        };
        let ended = if ending != Ending::Removed && self.view.is_exception(&flow) {
            // The next flow of the client's port may be one that peers are not told of: its packets must not find this record.
            self.tables.end_and_free(&flow, now.ticks)
        } else {
            self.tables.end(&flow, ending, now.ticks)
        };
        if let Some(id) = ended {
            self.copies.remove(id);
        }
    }

    /// Flows of the peer that it did not mention in a whole round have ended there.
    fn end_round(&mut self, peer: PeerNumber, now: Moment) {
        let Some(round) = self.peers[peer.0].subscription.end_round() else { return };
        let lost =
            self.copies.take(|origin| matches!(origin, Origin::Peer(of, at) if of == peer && at < round));
        self.forget(lost, now.ticks);
        let is_over = |until: &Vec<u64>| {
            self.peers.iter().zip(until).all(|(peer, until)| peer.subscription.whole() >= *until)
        };
        if self.unknown_until.as_ref().is_some_and(is_over) {
            self.unknown_until = None;
            let unknown = self.copies.take(|origin| origin == Origin::Unknown);
            self.forget(unknown, now.ticks);
        }
        for flow in self.peers[peer.0].subscription.take_skipped() {
            self.adopt_or_count(peer, &flow, now);
        }
    }

    /// Frees copies that no other node has. But a node never ends flows of a service that it serves because of what others do not
    /// know: these are its own then, and end like any other.
    fn forget(&self, copies: Vec<(FlowId, Ticks)>, now: Ticks) {
        for (id, seen) in copies {
            if !self.is_own_if_unclaimed(id, now) {
                self.tables.forget(id, seen);
            }
        }
    }

    /// Is the flow of a service that this node serves?
    pub(super) fn is_own_if_unclaimed(&self, id: FlowId, now: Ticks) -> bool {
        match self.tables.read(id, now) {
            Reading::Shared(flow, _) => self.view.service_of(&flow).is_some_and(|service| service.is_active),
            Reading::Ended(..) | Reading::Gone => false,
        }
    }

    /// At the start, this node waits for the first round of each peer. A peer that cannot be reached has nothing to say.
    pub(super) fn learn(&mut self, now: Instant) {
        if self.has_learned {
            return;
        }
        let waited = now.saturating_duration_since(self.started);
        let is_awaited = |peer: &Peer| {
            !peer.subscription.is_complete()
                && (waited < LEARNING || peer.subscription.is_connected() && waited < LEARNING_MAX)
        };
        self.has_learned = !self.peers.iter().any(is_awaited);
        if !self.has_learned || waited < LEARNING_MAX {
            return;
        }
        for (peer, status) in self.peers.iter().zip(&self.status.peers) {
            if peer.subscription.is_connected() && !peer.subscription.is_complete() {
                let (node, limit) = (&status.node, duration::show(LEARNING_MAX));
                warn!("peer {node} did not send all of its flows within {limit}");
            }
        }
    }
}
