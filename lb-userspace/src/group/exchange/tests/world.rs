//! Nodes in one process, with tables in memory and without connections.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    backend::{Backend, BackendId},
    flow::State,
    net::{Protocol, V4},
    pool::Picker,
    service::Mode,
    settings::PortPool,
};
use lb_ebpf::{
    storage::FlowTable as _,
    table::{record::by_index, reply_index, transition},
};
use tokio::sync::mpsc;

use super::super::*;
use crate::{
    datapath::{
        SharedFlow,
        flows::{Flows, fixture as tables},
        sharing::fixture::{self, NoEvents},
    },
    group::{
        computation::Computation,
        port::OUTBOX,
        view::ServiceView,
        wire::{Frame, ServiceDigest},
    },
    hash_key::HashKey,
    spec,
};

const WEB: BackendId = BackendId(7);
const OTHER: BackendId = BackendId(8);

/// A node with tables and an exchange.
pub struct Node {
    pub exchange: Exchange<NoEvents>,
    pub flows: Arc<Flows>,
    /// What it sends to each subscriber, by peer.
    pub outboxes: BTreeMap<usize, mpsc::Receiver<Arc<Frame>>>,
}

/// Nodes that are connected by their tests.
pub struct World {
    pub nodes: Vec<Node>,
    pub now: Moment,
    connections: u64,
}

pub fn group(node: usize, nodes: usize) -> Group {
    let name = |number: usize| format!("lb-{number}");
    let address = |number: usize| SocketAddr::from(([10, 0, 0, number as u8], 4790));
    let peers = (0..nodes).filter(|it| *it != node);
    Group {
        node: name(node),
        listen: address(node),
        cert: "/cert".into(),
        key: "/key".into(),
        ca: "/ca".into(),
        peers: peers.map(|it| spec::Peer { node: name(it), address: address(it) }).collect(),
    }
}

pub fn view(is_active: bool) -> Arc<View> {
    let service = Arc::new(ServiceView {
        name: "web".to_owned(),
        mode: Mode::FullNat,
        sources: vec!["10.1.0.254".parse().unwrap()],
        backends: [("10.1.0.1:8080".parse().unwrap(), WEB)].into(),
        is_active,
        computation: None,
    });
    let listen = "192.0.2.10:80".parse().unwrap();
    let digests = vec![ServiceDigest { name: "web".to_owned(), digest: 1, ..ServiceDigest::default() }];
    let listen = (listen, Protocol::Tcp);
    Arc::new(View { listens: vec![listen], services: [(listen, service)].into(), digests, hash_key: 5 })
}

/// The same service with a backend more, whose flows are computed: by a table that follows from the `definition`.
pub fn computing(is_active: bool, definition: u64, key: u64) -> Arc<View> {
    let view = view(is_active);
    let listen = view.listens[0];
    let mut service = ServiceView::clone(&view.services[&listen]);
    service.backends.insert("10.1.0.3:8080".parse().unwrap(), OTHER);
    let key = HashKey::new([key; 6]);
    let slots = if definition.is_multiple_of(2) { [WEB, OTHER, WEB] } else { [OTHER, WEB, OTHER] };
    service.computation = Some(Computation { slots: slots.to_vec().into(), picker: Picker::FlowHash, key });
    let digests =
        vec![ServiceDigest { name: "web".to_owned(), digest: definition, ..ServiceDigest::default() }];
    Arc::new(View::new(vec![(listen, Arc::new(service))], digests, &key))
}

pub fn flow(client: u16) -> SharedFlow {
    SharedFlow {
        protocol: Protocol::Tcp,
        client: SocketAddr::from(([10, 9, 0, 1], client)),
        listen: "192.0.2.10:80".parse().unwrap(),
        backend: "10.1.0.1:8080".parse().unwrap(),
        source: SocketAddr::from(([10, 1, 0, 254], client)),
        answer: Some(77),
        idle: Duration::ZERO,
    }
}

impl World {
    /// The first one is active.
    pub fn new(nodes: usize) -> Self {
        let now = Moment { instant: Instant::now(), ticks: Ticks::from_seconds(100_000) };
        let nodes = (0..nodes).map(|number| Node::new(number, nodes, 1, number == 0, now));
        Self { nodes: nodes.collect(), now, connections: 0 }
    }

    /// `to` subscribes to `from`, and the other way round.
    pub fn connect(&mut self, from: usize, to: usize) {
        self.subscribe(from, to);
        self.subscribe(to, from);
    }

    /// `to` subscribes to `from`.
    pub fn subscribe(&mut self, from: usize, to: usize) {
        self.connections += 1;
        let (connection, now) = (self.connections, self.now);
        let (outbox, frames) = mpsc::channel(OUTBOX);
        let hello = self.nodes[to].exchange.hello();
        let peer = self.peer(from, to);
        let input = Input::Subscribed { peer, connection, hello, outbox };
        self.nodes[from].exchange.absorb(input, now);
        self.nodes[from].outboxes.insert(to, frames);
        let hello = self.nodes[from].exchange.hello();
        let peer = self.peer(to, from);
        self.nodes[to].exchange.absorb(Input::Connected { peer, connection, hello }, now);
    }

    pub fn connect_all(&mut self) {
        for to in 0..self.nodes.len() {
            (0..to).for_each(|from| self.connect(from, to));
        }
    }

    pub fn disconnect(&mut self, a: usize, b: usize) {
        self.unsubscribe(a, b);
        self.unsubscribe(b, a);
    }

    /// `to` gets no more flows of `from`.
    pub fn unsubscribe(&mut self, from: usize, to: usize) {
        self.nodes[from].outboxes.remove(&to);
        let (now, why) = (self.now, "the connection was closed".to_owned());
        let peer = self.peer(to, from);
        if let Some(connection) = self.nodes[to].exchange.peers[peer.0].subscription.connection() {
            let input = Input::Disconnected { peer, connection, why: why.clone() };
            self.nodes[to].exchange.absorb(input, now);
        }
        let peer = self.peer(from, to);
        let subscriber = self.nodes[from].exchange.peers[peer.0].subscriber.as_ref();
        if let Some(connection) = subscriber.map(|it| it.connection) {
            self.nodes[from].exchange.absorb(Input::Unsubscribed { peer, connection, why }, now);
        }
    }

    /// The place of `other` among the peers of `node`.
    pub fn peer(&self, node: usize, other: usize) -> PeerNumber {
        PeerNumber(if other < node { other } else { other - 1 })
    }

    /// Everything that is under way arrives, and rounds that have begun end.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            for number in 0..self.nodes.len() {
                self.nodes[number].exchange.tick(self.now);
                self.deliver(number);
            }
        }
    }

    /// All nodes send all of their flows again.
    pub fn next_round(&mut self) {
        self.after(subscriber::REST);
        for _ in 0..20 {
            self.after(subscriber::PACE);
            self.settle();
        }
    }

    /// Delivers what a node has sent.
    pub fn deliver(&mut self, from: usize) {
        let mut frames = Vec::new();
        for (to, outbox) in &mut self.nodes[from].outboxes {
            while let Ok(frame) = outbox.try_recv() {
                frames.push((*to, frame));
            }
        }
        for (to, frame) in frames {
            let now = self.now;
            let peer = self.peer(to, from);
            let Some(connection) = self.nodes[to].exchange.peers[peer.0].subscription.connection() else {
                continue;
            };
            let sequence = frame.sequence;
            let frame = Arc::unwrap_or_clone(frame);
            self.nodes[to].exchange.absorb(Input::Received { peer, connection, frame }, now);
            let peer = self.peer(from, to);
            if let Some(connection) =
                self.nodes[from].exchange.peers[peer.0].subscriber.as_ref().map(|it| it.connection)
            {
                self.nodes[from].exchange.absorb(Input::Acknowledged { peer, connection, sequence }, now);
            }
        }
    }

    pub fn after(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.ticks.0 = self.now.ticks.0.wrapping_add(Ticks::from_ns(time.as_nanos() as u64).0);
    }

    pub fn open(&mut self, node: usize, flow: &SharedFlow) -> FlowId {
        let ticks = self.now.ticks;
        self.nodes[node].open(flow, ticks)
    }

    /// The flows that a node has.
    pub fn flows(&self, node: usize) -> Vec<SharedFlow> {
        let (mut flows, mut from) = (Vec::new(), Some(0));
        while let Some(begin) = from {
            let tables = &self.nodes[node].exchange.tables;
            from = tables.walk(begin, self.now.ticks, &mut |_, flow, _| flows.push(flow));
        }
        flows
    }

    /// The records of flows that have ended are taken by others.
    pub fn expire(&self, node: usize) {
        let table = &self.nodes[node].flows.v4;
        for index in 0..(table.buckets.len() * lb_common::flow::WAYS) as u32 {
            let found = by_index::<V4>(table, lb_common::flow::RecordIndex(index)).unwrap();
            if found.control.state().is_closed() {
                reply_index::free(
                    table,
                    &self.nodes[node].exchange.tables.settings(),
                    found.index,
                    found.control,
                );
            }
        }
    }

    /// The ports of the clients whose flows a node has.
    pub fn clients(&self, node: usize) -> Vec<u16> {
        let (mut clients, mut from) = (Vec::new(), Some(0));
        while let Some(begin) = from {
            let tables = &self.nodes[node].exchange.tables;
            from = tables.walk(begin, self.now.ticks, &mut |_, flow, _| clients.push(flow.client.port()));
        }
        clients.sort_unstable();
        clients
    }

    pub fn status(&mut self, node: usize) -> GroupStatus {
        let instant = self.now.instant;
        self.nodes[node].exchange.status(instant)
    }

    /// The id of a flow on a node.
    pub fn find(&self, node: usize, client: u16) -> FlowId {
        let (mut found, mut from) = (None, Some(0));
        while let Some(begin) = from {
            let tables = &self.nodes[node].exchange.tables;
            from = tables.walk(begin, self.now.ticks, &mut |id, flow, _| {
                if flow.client.port() == client {
                    found = Some(id);
                }
            });
        }
        found.unwrap_or_else(|| panic!("no flow of {client}"))
    }

    /// A packet of a flow comes to a node.
    pub fn packet(&self, node: usize, client: u16) {
        let id = self.find(node, client);
        let found = by_index::<V4>(&self.nodes[node].flows.v4, id.record()).unwrap();
        found.record.last_seen.store(self.now.ticks.0);
    }
}

impl Node {
    /// `key`: of its flow hash, which changes when its tables are replaced.
    pub fn new(number: usize, nodes: usize, key: u64, is_active: bool, now: Moment) -> Self {
        let mut settings = tables::settings(2048, 64);
        settings.keys[0] = key;
        settings.own_ports = PortPool::around(32_768, 60_999);
        let backends = [WEB, OTHER].map(|id| Backend { id, ..Backend::default() });
        let (shared, flows) = fixture::tables(settings, &backends);
        let exchange = Exchange::new(&group(number, nodes), shared, view(is_active), now);
        Self { exchange, flows, outboxes: BTreeMap::new() }
    }

    /// A flow is proven here.
    pub fn open(&self, flow: &SharedFlow, now: Ticks) -> FlowId {
        let place = self.exchange.view.place(flow).unwrap();
        let adopted = self.exchange.tables.adopt(flow, &place, now).unwrap();
        self.flows.v4.report(adopted.id.record(), adopted.id.generation());
        adopted.id
    }

    /// Changes the state of a flow, as its packets or the controller do.
    pub fn change(&self, id: FlowId, state: State) {
        let found = by_index::<V4>(&self.flows.v4, id.record()).unwrap();
        assert!(transition::change(&self.flows.v4, &found, state));
    }

    /// The controller ends a flow whose backend may have none.
    pub fn lose_backend(&self, id: FlowId) {
        let found = by_index::<V4>(&self.flows.v4, id.record()).unwrap();
        assert!(reply_index::end(&self.flows.v4, found.index, found.control));
    }

    pub fn state(&self, id: FlowId) -> State {
        by_index::<V4>(&self.flows.v4, id.record()).unwrap().control.state()
    }

    /// Another daemon takes over the tables.
    pub fn restart(&mut self, number: usize, nodes: usize, is_active: bool, now: Moment) {
        let settings = self.exchange.tables.settings();
        let shared = fixture::tables_of(settings, &self.flows);
        self.exchange = Exchange::new(&group(number, nodes), shared, view(is_active), now);
        self.outboxes.clear();
    }
}
