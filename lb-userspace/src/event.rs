//! What reaches the controller, and what it tells the tasks that serve it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use lb_common::hop::Hop;
use tokio::sync::oneshot;

use crate::{
    problem::Problem,
    spec::{BackendName, BackendPatch, HealthCheck, NewBackend},
    view,
};

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
    /// Somebody asks; the answer is the problem or the JSON of the response.
    Request(Request, oneshot::Sender<Result<Answer, Problem>>),
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

/// The label `result` of `xlb_health_checks_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeOutcome {
    /// It connected, or answered with 2xx or 3xx.
    Success,
    /// Refused, reset, or answered wrongly.
    Failure,
    /// No answer within the check's timeout.
    Timeout,
}

/// What is believed of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may be given flows.
    Up,
    /// It is given no new flows; over UDP it loses those that it has, too.
    Down,
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
    /// What is believed already (adopted from pinned maps); `None`: the first result alone decides.
    pub believed: Option<Health>,
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
    /// The route is known, the neighbour is not (it is being asked for).
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

/// What the API asks of the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `GET /v1/status`, and what `/readyz` judges by.
    Status,
    /// `GET /v1/services`
    Services,
    /// `GET /v1/backends`, and those of one service.
    Backends {
        /// `None`: those of all services.
        service: Option<String>,
    },
    /// `GET` of one backend.
    Backend {
        /// Of the file, or added by command.
        backend: BackendName,
    },
    /// `GET /v1/health`
    Health,
    /// Where a backend is to be probed; the probe itself is up to whoever asks.
    Probe {
        /// Whose target is asked for.
        backend: BackendName,
    },
    /// `GET /v1/flows`: answered when the tables have been walked, or the list is full.
    Flows(view::FlowQuery),
    /// `GET /v1/flows/count`
    FlowCount,
    /// `GET /v1/stats`
    Stats,
    /// `GET /metrics`
    Metrics,
    /// `POST /v1/reload`, and SIGHUP.
    Reload,
    /// `POST /v1/detach`: answered when the data plane is gone.
    Detach,
    /// `POST` to a backend: kept in the overlay.
    AddBackend {
        /// A name that its service does not have so far.
        backend: BackendName,
        /// What the file would say of it.
        body: NewBackend,
    },
    /// `DELETE` of a backend: kept in the overlay.
    RemoveBackend {
        /// Of the file, or added by command.
        backend: BackendName,
    },
    /// `PATCH` of a backend: kept in the overlay.
    PatchBackend {
        /// Of the file, or added by command.
        backend: BackendName,
        /// What is not in it stays.
        body: BackendPatch,
    },
}

/// For the log: the command, or what is asked for.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Services => f.write_str("services"),
            Self::Backends { service: None } => f.write_str("backends"),
            Self::Backends { service: Some(service) } => write!(f, "backends of {service}"),
            Self::Backend { backend } => write!(f, "backend {backend}"),
            Self::Health => f.write_str("health"),
            Self::Probe { backend } => write!(f, "probe of {backend}"),
            Self::Flows(_) => f.write_str("flows"),
            Self::FlowCount => f.write_str("flow count"),
            Self::Stats => f.write_str("stats"),
            Self::Metrics => f.write_str("metrics"),
            Self::Reload => f.write_str("reload"),
            Self::Detach => f.write_str("detach"),
            Self::AddBackend { backend, body } => write!(f, "add backend {backend} at {}", body.address),
            Self::RemoveBackend { backend } => write!(f, "remove backend {backend}"),
            Self::PatchBackend { backend, body } => write!(f, "change backend {backend}: {body}"),
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(view::Status),
    /// To [`Request::Services`], in the order of the file.
    Services(Vec<view::Service>),
    /// To [`Request::Backends`], in the order of the file.
    Backends(Vec<view::Backend>),
    /// To [`Request::Backend`], and to what adds or changes a backend: as it is from then on, with flows that were
    /// counted after the change was in force.
    Backend(view::Backend),
    /// To [`Request::Health`], in the order of the file.
    Health(Vec<view::HealthState>),
    /// Where the API's own task is to probe: the controller never waits for the network.
    Probe(Target),
    /// To [`Request::Flows`], in no order.
    Flows(Vec<view::Flow>),
    /// To [`Request::FlowCount`].
    FlowCount(view::FlowCount),
    /// To [`Request::Stats`]: each service, followed by its backends.
    Stats(Vec<view::Stats>),
    /// To [`Request::Metrics`], in the text format of Prometheus.
    Metrics(String),
    /// To [`Request::Reload`]: the file is in force.
    Reload(view::Reloaded),
    /// It is done, and there is nothing to show.
    Done,
}

/// When something began, on both clocks: one to subtract, one to show.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Monotonic: ages are reckoned from it.
    pub instant: Instant,
    /// For metrics, as the operator's clock had it.
    pub time: SystemTime,
}
