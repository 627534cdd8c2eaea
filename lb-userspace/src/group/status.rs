//! What the exchange says of the group: for the API, the metrics and `xlb status`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// This node and its peers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupStatus {
    /// The name of this node.
    pub node: String,
    /// Where peers connect to.
    pub listen: Option<SocketAddr>,
    /// Which share of the source ports this node uses, from 0, and of how many.
    pub ports: (usize, usize),
    /// It has just started, and waits for the flows of its peers.
    pub is_learning: bool,
    /// Flows of this node that it could not tell at once: the next round tells them.
    pub events_lost: u64,
    /// Connections to this node that were refused: see [`Refusals`](super::port::Refusals).
    pub refused: u64,
    /// In the order of the file.
    pub peers: Vec<PeerStatus>,
}

impl GroupStatus {
    /// A peer is out of reach. It may serve flows that this node does not know.
    pub fn misses_a_peer(&self) -> bool {
        self.peers.iter().any(|peer| !peer.is_heard)
    }

    /// A peer that this node sees again has not told all of its flows yet. Its clients may be here already.
    pub fn awaits_flows(&self) -> bool {
        self.peers.iter().any(|peer| peer.is_connected && !peer.is_complete)
    }
}

/// One peer, with the connections of both directions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// Its name.
    pub node: String,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// Its flows come to this node.
    pub is_connected: bool,
    /// Its flows come to this node, and it has said something a moment ago.
    pub is_heard: bool,
    /// When that connection began, or ended.
    pub since: Option<SystemTime>,
    /// Why there is no connection.
    pub failure: Option<String>,
    /// A whole round has arrived over this connection.
    pub is_complete: bool,
    /// Its flows that this node holds.
    pub held: u64,
    /// Flows that were received from it, with each repetition.
    pub received: u64,
    /// Flows that it said had ended.
    pub ended: u64,
    /// Flows of it that this node could not take, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The flows of this node go to it.
    pub is_subscribed: bool,
    /// Flows that were sent to it, with each repetition.
    pub sent: u64,
    /// Flows that were not sent because it computes their backends, with each repetition.
    pub computed: u64,
    /// How often it was too slow, and got all flows again.
    pub resyncs: u64,
    /// The age of the oldest frame that it has not acknowledged.
    pub lag: Duration,
    /// Services whose definition differs there. `None`: not known.
    pub differs: Option<Vec<String>>,
    /// Does it hash with the same key? `None`: not known.
    pub same_hash_key: Option<bool>,
    /// Its clock minus that of this node.
    pub clock_difference_ms: Option<i64>,
    /// Does it choose source ports that this node chooses, too? `None`: not known.
    pub source_ports_overlap: Option<bool>,
}
