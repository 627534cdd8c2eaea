//! What is sent to the controller, and what the controller publishes to other tasks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use lb_common::hop::Hop;

use crate::{
    cluster::News,
    probe::{Facts, ProbeOutcome},
    spec::{BackendName, HealthCheck},
    view,
};

mod request;

pub use request::{Answer, Reply, Request};

/// An event. It only changes the controller's state; the controller acts on it afterwards.
#[derive(Debug)]
pub enum Event {
    /// A probe ended.
    Probed(Probed),
    /// The next hops of all watched paths. Sent as a whole whenever any of them changes.
    Hops(BTreeMap<Path, HopState>),
    /// A route, a neighbour's address or a link changed: flows look up their client's next hop again.
    RoutingChanged,
    /// A link appeared, disappeared, went up or down, or changed its MTU or address; or this host's IP addresses
    /// changed.
    LinksChanged,
    /// A pin of the data plane is missing.
    PinsRemoved,
    /// The kernel's grace period with this number has passed: every packet that was in the program when it began has left.
    GracePeriodEnded(u64),
    /// This node has learned the flows of its peers.
    GroupChanged,
    /// What is stored in etcd, or the end of a write.
    Cluster(News),
    /// A request of the API or the daemon.
    Request(Request),
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// It may have been removed during the probe.
    pub backend: BackendName,
    /// The probed target. Another backend may have the name by now.
    pub address: SocketAddr,
    /// The backend's new health, if this result changed it or is the first; otherwise `None`.
    pub change: Option<Health>,
    /// For the API and the metrics. Only `change` affects the health.
    pub result: ProbeResult,
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeResult {
    /// The label of `xlb_health_checks_total`.
    pub outcome: ProbeOutcome,
    /// For the operator: "connected", "HTTP 200", "connection refused", "no answer within 1s".
    pub detail: String,
    /// For programs. Empty unless it succeeded, or the backend says itself that it is down.
    pub facts: Facts,
    /// Until the result or the timeout.
    pub duration: Duration,
    /// When the probe began.
    pub at: SystemTime,
}

impl From<&ProbeResult> for view::ProbeResult {
    fn from(result: &ProbeResult) -> Self {
        Self {
            result: result.outcome,
            detail: result.detail.clone(),
            duration_seconds: result.duration.as_secs_f64(),
        }
    }
}

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can get flows.
    Up,
    /// It gets no new flows, and may lose those that it has.
    Down,
}

/// `None`: not known yet.
impl From<Option<Health>> for view::Health {
    fn from(health: Option<Health>) -> Self {
        match health {
            Some(Health::Up) => Self::Up,
            Some(Health::Down) => Self::Down,
            None => Self::Unknown,
        }
    }
}

/// A target of health checks. The list is sent as a whole on a `tokio::sync::watch`; unchanged targets keep their
/// tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The backend that the results are about.
    pub backend: BackendName,
    /// The backend's address, with the port of the check.
    pub address: SocketAddr,
    /// The local address that probes are sent from. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// The type of check, its interval, and its thresholds.
    pub check: HealthCheck,
    /// The health that is known already (adopted from pinned maps). `None`: the first result decides.
    pub known: Option<Health>,
}

/// Source and destination: routes may depend on the source (`ip rule from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The backend.
    pub to: IpAddr,
    /// The local source of packets. `None`: they come from clients, or the source is unknown.
    pub from: Option<IpAddr>,
}

/// How a backend can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopState {
    /// Packets can be sent to the backend.
    Resolved(Hop),
    /// The route is known, but not the neighbour's address, which has been requested.
    Unresolved {
        /// The neighbour: a gateway, or the backend itself.
        next_hop: IpAddr,
        /// The name of the interface that the neighbour is on.
        interface: String,
    },
    /// The route uses an interface that is not configured.
    Outside {
        /// The name of that interface.
        interface: String,
        /// Whether it can be configured.
        is_ethernet: bool,
    },
    /// The address is one of this host's own, which packets sent by XDP cannot reach.
    Local,
    /// There is no route, or it is unreachable, prohibit or blackhole.
    NoRoute,
}

/// When something began, on both clocks: one for differences, one to show.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Monotonic, for ages.
    pub instant: Instant,
    /// Wall clock, for metrics.
    pub time: SystemTime,
}
