//! The exchange: tells peers of the flows of this node, and keeps copies of theirs.
//!
//! ```text
//!   XDP program, controller ─ids─▶ read the records ─▶ delta ──▶ outbox of each subscriber
//!   flow tables ─────────────walk, chunk by chunk────▶ round ──▶
//!   frames of peers ─▶ check against the services here ─▶ write into the flow tables (copies)
//! ```
//!
//! One task owns all of this, so what a peer gets is in the order in which the records were read: a delta that follows a round's
//! chunk is newer than it.

mod changes;
mod computed;
mod copies;
mod incoming;
mod outgoing;
mod peer;
mod subscriber;
mod subscription;
pub mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use lb_common::{clock::Ticks, flow::FlowId, net::Protocol};

use self::{
    copies::{Copies, Origin},
    peer::Peer,
    subscriber::Subscriber,
};
use super::{
    port::{Input, PeerNumber},
    status::{GroupStatus, PeerStatus},
    view::View,
    wire::Hello,
};
use crate::{
    datapath::{FlowEvents, SharedTables},
    spec::Group,
};

/// Ids that are handled at a time: those of 2 ms at 2 million flows a second.
const IDS: usize = 8192;
/// How long a node that starts waits for peers that cannot be reached before it takes its own flows for all there are.
pub const LEARNING: Duration = Duration::from_secs(5);
/// The longest time that it waits for peers that can be reached. With a peer that never ends a round, no node of a group might
/// become active.
const LEARNING_MAX: Duration = Duration::from_secs(30);
/// If two nodes have seen packets of a flow within this time, it belongs to both: otherwise each could take it for the other's.
const BOTH: Ticks = Ticks::from_seconds(1);
/// A flow that was seen before a node took over, and that it does not have, has ended there. Clocks of packets and of
/// addresses are not the same.
const TAKE_OVER_SKEW: Ticks = Ticks::from_seconds(5);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Of the daemon.
    pub instant: Instant,
    /// Of the flow tables.
    pub ticks: Ticks,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Exchange<E> {
    tables: SharedTables<E>,
    view: Arc<View>,
    copies: Copies,
    peers: Vec<Peer>,
    /// Of the last frame.
    sequence: u64,
    events_lost: u64,
    started: Instant,
    /// The first rounds of the peers are here, as far as they can be reached.
    has_learned: bool,
    /// For each peer the number of the round after which flows of unknown origin have ended. `None`: there are none.
    unknown_until: Option<Vec<u64>>,
    /// When this node got the listen addresses of services that it had not.
    took_over: HashMap<(SocketAddr, Protocol), Ticks>,
    ids: Vec<FlowId>,
    status: GroupStatus,
}

impl<E: FlowEvents> Exchange<E> {
    /// Takes the flows that are there, of services that this node does not serve, for copies.
    pub fn new(group: &Group, tables: SharedTables<E>, view: Arc<View>, now: Moment) -> Self {
        let (node, nodes) = group.share();
        let status = |peer: &crate::spec::Peer| PeerStatus {
            node: peer.node.clone(),
            address: Some(peer.address),
            ..PeerStatus::default()
        };
        let mut exchange = Self {
            tables,
            view,
            copies: Copies::default(),
            peers: group.peers.iter().map(|_| Peer::default()).collect(),
            sequence: 0,
            events_lost: 0,
            started: now.instant,
            has_learned: false,
            unknown_until: None,
            took_over: HashMap::new(),
            ids: Vec::new(),
            status: GroupStatus {
                node: group.node.clone(),
                listen: Some(group.listen),
                ports: (node, nodes),
                is_learning: true,
                peers: group.peers.iter().map(status).collect(),
                ..GroupStatus::default()
            },
        };
        exchange.adopt_old(now);
        exchange
    }

    /// Who this node is, for its peers.
    pub fn hello(&self) -> Hello {
        Hello {
            node: self.status.node.clone(),
            epoch: self.tables.epoch(),
            hash_key: self.view.hash_key,
            source_ports: Some(self.tables.settings().own_ports.into()),
            ..Hello::default()
        }
    }

    /// The services have changed.
    pub fn set_view(&mut self, view: Arc<View>, now: Moment) {
        let has_other_services = view.digests != self.view.digests;
        let former = std::mem::replace(&mut self.view, view);
        self.take_over(&former, now.ticks);
        if has_other_services {
            for number in 0..self.peers.len() {
                self.send_services(number, now.instant);
                self.compare_services(number, now.instant);
            }
        }
    }

    /// Notes which services this node serves from now on. Flows of unknown origin of these are its own.
    fn take_over(&mut self, former: &View, now: Ticks) {
        let view = &self.view;
        self.took_over.retain(|key, _| view.is_active(*key));
        let gained: Vec<_> =
            view.listens.iter().copied().filter(|key| view.is_active(*key) && former.lacks(*key)).collect();
        if gained.is_empty() {
            return;
        }
        if self.has_learned {
            self.took_over.extend(gained.into_iter().map(|key| (key, now)));
        }
        for (id, seen) in self.copies.take(|origin| origin == Origin::Unknown) {
            if !self.is_own_if_unclaimed(id, now) {
                self.copies.put(id, Origin::Unknown, seen);
            }
        }
    }

    /// Handles what a session tells.
    pub fn absorb(&mut self, input: Input, now: Moment) {
        match input {
            Input::Subscribed { peer, connection, hello, outbox } => {
                let subscriber = Subscriber::new(connection, outbox, now.instant);
                self.subscribed(peer, &hello, subscriber, now.instant);
            }
            Input::Acknowledged { peer, connection, sequence } => {
                let subscriber = self.peers.get_mut(peer.0).and_then(|it| it.subscriber.as_mut());
                if let Some(it) = subscriber.filter(|it| it.connection == connection) {
                    it.acknowledged(sequence);
                }
            }
            Input::Unsubscribed { peer, connection, why: _ } => {
                let Some(it) = self.peers.get_mut(peer.0) else { return };
                if it.subscriber.as_ref().is_some_and(|it| it.connection == connection) {
                    it.forget_subscriber();
                }
            }
            Input::Connected { peer, connection, hello } => {
                self.connected(peer, connection, &hello, now.instant)
            }
            Input::Received { peer, connection, frame } => {
                if self.is_current(peer, connection) {
                    self.receive(peer, frame, now);
                }
            }
            Input::Disconnected { peer, connection, why } => {
                self.disconnected(peer, connection, why, now.instant)
            }
        }
    }

    /// Tells subscribers what has changed, and goes on with their rounds.
    pub fn tick(&mut self, now: Moment) {
        self.send_changes(now);
        for number in 0..self.peers.len() {
            self.send_round(number, now);
            let peer = &mut self.peers[number];
            if peer.subscriber.as_ref().is_some_and(Subscriber::is_lost) {
                peer.forget_subscriber();
            }
        }
        self.learn(now.instant);
    }

    /// For the operator.
    pub fn status(&mut self, now: Instant) -> GroupStatus {
        let own_ports = self.tables.settings().own_ports;
        for (number, (peer, status)) in self.peers.iter().zip(&mut self.status.peers).enumerate() {
            let subscriber = peer.subscriber.as_ref();
            *status = PeerStatus {
                node: std::mem::take(&mut status.node),
                address: status.address,
                is_connected: peer.subscription.is_connected(),
                is_heard: peer.is_heard(now),
                since: peer.since,
                failure: peer.failure.clone(),
                is_complete: peer.subscription.is_complete(),
                held: self.copies.of(PeerNumber(number)),
                received: peer.received,
                ended: peer.ended,
                skipped: peer.skipped.clone(),
                is_subscribed: subscriber.is_some(),
                sent: peer.sent + subscriber.map_or(0, |it| it.sent),
                computed: peer.computed.count,
                resyncs: peer.resyncs + subscriber.map_or(0, |it| it.resyncs),
                lag: subscriber.map_or(Duration::ZERO, |it| it.lag(now)),
                differs: peer.differs.clone(),
                same_hash_key: peer.hash_key.map(|key| key == self.view.hash_key),
                clock_difference_ms: peer.clock_difference_ms,
                source_ports_overlap: peer.source_ports.map(|ports| ports.overlaps(own_ports)),
            };
        }
        self.status.events_lost = self.events_lost;
        self.status.is_learning = !self.has_learned;
        self.status.clone()
    }

    /// The flows at the start: whether they are copies is not known. A node that serves them keeps them.
    fn adopt_old(&mut self, now: Moment) {
        let mut from = Some(0);
        while let Some(begin) = from {
            let (copies, view) = (&mut self.copies, &self.view);
            from = self.tables.walk(begin, now.ticks, &mut |id, flow, seen| {
                if !view.service_of(&flow).is_some_and(|service| service.is_active) {
                    copies.put(id, Origin::Unknown, seen);
                }
            });
        }
        self.await_rounds();
    }

    fn is_current(&self, peer: PeerNumber, connection: u64) -> bool {
        self.peers.get(peer.0).is_some_and(|it| it.subscription.is(connection))
    }

    /// If the peer has other tables than before, it does not know its former flows.
    fn connected(&mut self, peer: PeerNumber, connection: u64, hello: &Hello, now: Instant) {
        let Some(it) = self.peers.get_mut(peer.0) else { return };
        it.meet(hello);
        (it.failure, it.since, it.heard) = (None, Some(SystemTime::now()), Some(now));
        if it.subscription.begin(connection, hello.epoch) && self.copies.disown(peer) {
            self.await_rounds();
        }
        self.compare_computations(peer.0, now);
    }

    /// Flows of unknown origin have ended if no peer mentions them in its next whole round.
    fn await_rounds(&mut self) {
        self.unknown_until = Some(self.peers.iter().map(|peer| peer.subscription.next_whole()).collect());
    }

    fn disconnected(&mut self, peer: PeerNumber, connection: u64, why: String, now: Instant) {
        let Some(it) = self.peers.get_mut(peer.0) else { return };
        let was_connected = it.subscription.is_connected();
        if was_connected && !it.subscription.is(connection) {
            return;
        }
        if was_connected || it.since.is_none() {
            it.since = Some(SystemTime::now());
        }
        it.subscription.end();
        it.failure = Some(why);
        self.compare_computations(peer.0, now);
    }

    fn compare_services(&mut self, number: usize, now: Instant) {
        let peer = &mut self.peers[number];
        peer.differs = peer.subscription.services().map(|there| self.view.differences(there));
        self.compare_computations(number, now);
    }
}
