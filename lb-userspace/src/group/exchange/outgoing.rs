//! What peers get: flows that have changed, rounds of all flows, and the definitions of services.
//!
//! A peer that computes the backends of a service as this node does gets only the service's other flows:
//!
//! - It does so if the last list of services that it has sent, over the connection that is there, has the same
//!   [`computation`](crate::group::wire::ServiceDigest::computation) as this node's. Otherwise it gets everything.
//! - Once it computes a service no more, because its file or this node's has changed, it gets all flows again.
//! - The first round waits for its list: at most [`LIST_WAIT`], because it may not be able to send one. So does
//!   the round after its connection has ended.

use std::time::{Duration, Instant};

use super::{
    Exchange, IDS, Moment,
    changes::{Changes, numbered, round},
    peer::Peer,
    subscriber::{Next, Subscriber},
};
use crate::{
    datapath::{FlowEvents, Reading},
    group::{
        port::PeerNumber,
        wire::{FRAME_ITEMS, Frame, Hello, Round},
    },
};

/// Two nodes connect to each other at about the same time: each tries it several times a second.
const LIST_WAIT: Duration = Duration::from_secs(1);

impl<E: FlowEvents> Exchange<E> {
    /// Begins to tell a peer of the flows of this node.
    pub(super) fn subscribed(
        &mut self,
        peer: PeerNumber,
        hello: &Hello,
        mut subscriber: Subscriber,
        now: Instant,
    ) {
        let Some(it) = self.peers.get_mut(peer.0) else { return };
        it.forget_subscriber();
        it.meet(hello);
        let waits = self.view.computes() && it.subscription.current_services().is_none();
        if waits {
            subscriber.begin_round(now + LIST_WAIT);
        }
        it.subscriber = Some(subscriber);
        if waits {
            // The peer may wait for this node's list.
            self.send_services(peer.0, now);
        }
    }

    /// Notes which services the peer computes as this node does.
    pub(super) fn compare_computations(&mut self, number: usize, now: Instant) {
        let peer = &mut self.peers[number];
        let there = peer.subscription.current_services();
        let is_known = there.is_some();
        let listens = there.map(|there| self.view.computed_alike(there)).unwrap_or_default();
        let former = std::mem::replace(&mut peer.computed.listens, listens);
        let Some(subscriber) = peer.subscriber.as_mut() else { return };
        if !former.is_subset(&peer.computed.listens) {
            subscriber.begin_round(now + LIST_WAIT);
        }
        if is_known {
            subscriber.wait_no_longer(now);
        }
    }

    /// Reads what has changed, and tells all subscribers.
    pub(super) fn send_changes(&mut self, now: Moment) {
        let mut ids = std::mem::take(&mut self.ids);
        self.tables.take(IDS, &mut ids);
        let lost = self.tables.take_lost();
        if lost > 0 {
            self.events_lost += lost;
            self.peers.iter_mut().filter_map(|peer| peer.subscriber.as_mut()).for_each(Subscriber::restart);
        }
        let mut changes = Changes::default();
        for id in ids.drain(..) {
            match self.tables.read(id, now.ticks) {
                Reading::Shared(flow, _) => {
                    self.copies.remove(id);
                    changes.flows.push(flow);
                }
                Reading::Ended(flow, ending) => {
                    self.copies.remove(id);
                    changes.ended.push((flow, ending));
                }
                Reading::Gone => {
                    self.copies.remove(id);
                }
            }
        }
        self.ids = ids;
        self.tell(&changes, None, now.instant);
    }

    /// Goes on with the round of a subscriber.
    pub(super) fn send_round(&mut self, number: usize, now: Moment) {
        let Self { tables, copies, peers, sequence, view, .. } = self;
        let Peer { subscriber: Some(subscriber), computed, .. } = &mut peers[number] else { return };
        match subscriber.next(now.instant) {
            Next::Nothing => {}
            Next::Begin => {
                subscriber.advance(Some(0), now.instant);
                subscriber.send(&numbered(sequence, round(Round::Begin)), now.instant);
                // A peer that was behind has missed changes of them.
                self.send_services(number, now.instant);
            }
            Next::Chunk(from) => {
                let (mut changes, mut gained) = (Changes::default(), Changes::default());
                let next = tables.walk(from, now.ticks, &mut |id, flow, seen| {
                    if copies.has(id, seen) {
                        return;
                    }
                    if copies.remove(id) {
                        gained.flows.push(flow);
                    }
                    changes.flows.push(flow);
                });
                for frame in computed.frames(&changes, view, sequence) {
                    subscriber.send(&frame, now.instant);
                }
                if next.is_none() {
                    subscriber.send(&numbered(sequence, round(Round::End)), now.instant);
                }
                subscriber.advance(next, now.instant);
                // Their former owners stop to mention them.
                self.tell(&gained, Some(number), now.instant);
            }
        }
    }

    /// Tells all subscribers but one. Those that compute nothing get the same frames.
    fn tell(&mut self, changes: &Changes, except: Option<usize>, now: Instant) {
        let Self { peers, sequence, view, .. } = self;
        let mut whole = None;
        for (number, peer) in peers.iter_mut().enumerate() {
            let Peer { subscriber: Some(subscriber), computed, .. } = peer else { continue };
            if Some(number) == except {
                continue;
            }
            let exceptions;
            let frames = if computed.listens.is_empty() {
                whole.get_or_insert_with(|| changes.frames(sequence))
            } else {
                exceptions = computed.frames(changes, view, sequence);
                &exceptions
            };
            frames.iter().for_each(|frame| subscriber.send(frame, now));
        }
    }

    /// Sends the definitions of the services, so that the peer notices if its own differ.
    pub(super) fn send_services(&mut self, number: usize, now: Instant) {
        let Self { view, peers, sequence, .. } = self;
        let Some(subscriber) = peers[number].subscriber.as_mut() else { return };
        for services in view.digests.chunks(FRAME_ITEMS) {
            let frame = Frame { services: services.to_vec(), ..Frame::default() };
            subscriber.send(&numbered(sequence, frame), now);
        }
        subscriber.send(&numbered(sequence, Frame { services_end: true, ..Frame::default() }), now);
    }
}
