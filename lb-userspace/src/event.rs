//! What reaches the controller, and what it tells the tasks that serve it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use lb_common::hop::Hop;

use crate::{
    probe::ProbeOutcome,
    spec::{BackendName, HealthCheck},
    view,
};

mod request;

pub use request::{Answer, Reply, Request};

/// Something happened. Events only change the controller's state; what follows from it is decided afterwards.
#[derive(Debug)]
pub enum Event {
    /// A probe ended.
    Probed(Probed),
    /// The next hops of all watched paths, as netlink knows them now. Sent whole, when anything in it changed.
    Hops(BTreeMap<Path, HopState>),
    /// A route, a neighbour's address or a link changed: flows look up their client's next hop again.
    RoutingChanged,
    /// A link appeared, vanished, went up or down, or changed its MTU or address; or this host has other IP addresses.
    LinksChanged,
    /// A pin of the data plane is missing.
    PinsRemoved,
    /// A question or a command, of the API or the daemon.
    Request(Request),
}

/// The end of one probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// It may have been removed while the probe was under way.
    pub backend: BackendName,
    /// What was probed: the name may be another backend's by now.
    pub address: SocketAddr,
    /// The steady health if this result changed it (or is the first), else `None`.
    pub change: Option<Health>,
    /// For the API and the metrics; `change` alone decides.
    pub result: ProbeResult,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeResult {
    /// What `xlb_health_checks_total` counts.
    pub outcome: ProbeOutcome,
    /// What an operator reads: "connected", "HTTP 200", "connection refused", "no answer within 1s".
    pub detail: String,
    /// From the beginning to the end, or to the timeout.
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
    /// It may be given flows.
    Up,
    /// It is given no new flows; over UDP it loses those that it has, too.
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

/// What the probes are to watch. Sent whole on a `tokio::sync::watch`; the prober keeps what did not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Who the results are about.
    pub backend: BackendName,
    /// The backend's address, with the port that the check asks for.
    pub address: SocketAddr,
    /// The address of this host that it is probed from; `None`: the one that the kernel chooses.
    pub source: Option<IpAddr>,
    /// How it is probed, how often, and how many results in a row count.
    pub check: HealthCheck,
    /// The health known already (adopted from pinned maps); `None`: the first result decides.
    pub known: Option<Health>,
}

/// From where to where: routes may depend on the source (`ip rule from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// A backend.
    pub to: IpAddr,
    /// The address of this host that its packets come from; `None`: they come from clients, or nothing is known.
    pub from: Option<IpAddr>,
}

/// How a backend can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopState {
    /// Packets for the backend can be sent.
    Resolved(Hop),
    /// The route is known, the neighbour is not (it has been requested).
    Unresolved {
        /// The neighbour: a gateway, or the backend itself.
        next_hop: IpAddr,
        /// The name of the interface that the neighbour is on.
        interface: String,
    },
    /// The route leaves through an interface that is not configured.
    Outside {
        /// The name of that interface.
        interface: String,
        /// Whether it could be configured.
        is_ethernet: bool,
    },
    /// The address is this host's own: what the program sends leaves the host, and never gets there.
    Local,
    /// The kernel has no route, or one that refuses (unreachable, prohibit, blackhole).
    NoRoute,
}

/// When something began, on both clocks: one to subtract, one to show.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Monotonic: ages are reckoned from it.
    pub instant: Instant,
    /// For metrics, as the operator's clock had it.
    pub time: SystemTime,
}
