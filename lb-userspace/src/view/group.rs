//! `GET /v1/group`

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use lb_common::quiet::Quiet;
use serde::{Deserialize, Serialize};

use crate::group::status::{GroupStatus, PeerStatus};

/// A peer that is later than this with acknowledgements is lagging: what it lacks is lost if this node fails.
const LAGGING: Duration = Duration::from_secs(1);

/// `GET /v1/group`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Group {
    /// The name of this node.
    pub node: String,
    /// Where peers connect to.
    pub listen: Option<SocketAddr>,
    /// Which share of the source ports this node uses, from 0.
    pub port_share: usize,
    /// The number of shares, which is that of nodes.
    pub port_shares: usize,
    /// It has just started, and waits for the flows of its peers.
    pub learning: bool,
    /// It does not answer packets without a flow, because a peer may know the flow.
    pub quiet: bool,
    /// It answers packets without a flow only when they are repeated, because a peer is not connected.
    #[serde(default)]
    pub quiet_at_first: bool,
    /// Events of the data plane that were lost because there were too many: the next round makes up for them.
    pub events_lost_total: u64,
    /// Connections to this node that it refused: without a certificate of a peer, without a hello, or too many at once.
    #[serde(default)]
    pub connections_refused_total: u64,
    /// In the order of the file.
    pub peers: Vec<GroupPeer>,
}

/// A peer in [`Group`]
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct GroupPeer {
    /// Its name.
    pub node: String,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// Its flows come to this node.
    pub receiving: bool,
    /// Since `receiving` changed. `null`: it never was.
    pub since_seconds: Option<u64>,
    /// Why its flows do not come to this node.
    pub failure: Option<String>,
    /// All its flows have arrived since then.
    pub complete: bool,
    /// Its flows that this node holds.
    pub flows_held: u64,
    /// With each repetition.
    pub flows_received_total: u64,
    /// Flows that it said had ended.
    pub flows_ended_total: u64,
    /// Its flows that this node could not take, by reason.
    pub flows_skipped_total: BTreeMap<String, u64>,
    /// The flows of this node go to it.
    pub sending: bool,
    /// With each repetition.
    pub flows_sent_total: u64,
    /// Flows that were not sent because it computes their backends. With each repetition.
    #[serde(default)]
    pub flows_computed_total: u64,
    /// How often it was too slow, and got all flows again.
    pub resyncs_total: u64,
    /// The age of the oldest flow that was sent and that it has not acknowledged.
    pub lag_seconds: f64,
    /// Services whose definition differs there. `null`: not known.
    pub services_differing: Option<Vec<String>>,
    /// Whether it has the same key for the schedulers that hash. `null`: not known.
    pub same_hash_key: Option<bool>,
    /// How far its clock is ahead. `null`: not known.
    pub clock_difference_ms: Option<i64>,
    /// Whether it uses source ports that this node uses, too, which must not be. `null`: not known.
    #[serde(default)]
    pub source_ports_overlap: Option<bool>,
}

impl Group {
    /// As the API shows it at this time.
    pub fn of(status: &GroupStatus, quiet: Quiet, now: SystemTime) -> Self {
        let GroupStatus { node, listen, ports, is_learning, events_lost, refused, peers } = status;
        Self {
            node: node.clone(),
            listen: *listen,
            port_share: ports.0,
            port_shares: ports.1,
            learning: *is_learning,
            quiet: quiet == Quiet::Always,
            quiet_at_first: quiet == Quiet::AtFirst,
            events_lost_total: *events_lost,
            connections_refused_total: *refused,
            peers: peers.iter().map(|peer| GroupPeer::of(peer, now)).collect(),
        }
    }
}

impl GroupPeer {
    fn of(status: &PeerStatus, now: SystemTime) -> Self {
        // The clock may have been set back.
        let age = |since: SystemTime| now.duration_since(since).unwrap_or_default().as_secs();
        let skipped = status.skipped.iter().map(|(reason, count)| ((*reason).to_owned(), *count));
        Self {
            node: status.node.clone(),
            address: status.address,
            receiving: status.is_connected,
            since_seconds: status.since.map(age),
            failure: status.failure.clone(),
            complete: status.is_complete,
            flows_held: status.held,
            flows_received_total: status.received,
            flows_ended_total: status.ended,
            flows_skipped_total: skipped.collect(),
            sending: status.is_subscribed,
            flows_sent_total: status.sent,
            flows_computed_total: status.computed,
            resyncs_total: status.resyncs,
            lag_seconds: status.lag.as_secs_f64(),
            services_differing: status.differs.clone(),
            same_hash_key: status.same_hash_key,
            clock_difference_ms: status.clock_difference_ms,
            source_ports_overlap: status.source_ports_overlap,
        }
    }

    /// Do flows go both ways?
    pub const fn is_connected(&self) -> bool {
        self.receiving && self.sending
    }

    /// Is it late with flows of this node?
    pub fn is_lagging(&self) -> bool {
        self.sending && self.lag_seconds > LAGGING.as_secs_f64()
    }
}
