//! What reaches the controller, and what it tells the tasks that serve it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use lb_common::hop::Hop;
use tokio::sync::oneshot;

use crate::{
    api::view,
    spec::{BackendName, HealthCheck},
};

/// Something happened. Events only change the controller's state; what follows from it is decided afterwards.
#[derive(Debug)]
pub enum Event {
    /// A probe ended.
    Probed(Probed),
    /// The next hops of all watched backends, as netlink knows them now. Sent whole, when anything in it changed.
    Hops(BTreeMap<IpAddr, HopState>),
    /// A route, a neighbour's address or a link changed: flows look up their client's next hop again.
    RoutingChanged,
    /// A link appeared, vanished, went up or down, or changed its MTU or address; or this host has other IP addresses.
    LinksChanged,
    /// Somebody asks; the answer is the problem or the JSON of the response.
    Request(Request, oneshot::Sender<Result<Answer, Problem>>),
}

/// The end of one probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    pub backend: BackendName,
    /// The steady health if this result changed it (or is the first), else `None`.
    pub change: Option<Health>,
    pub result: ProbeResult,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeResult {
    pub outcome: ProbeOutcome,
    /// What an operator reads: "connected", "HTTP 200", "connection refused", "no answer within 1s".
    pub detail: String,
    pub duration: Duration,
    pub at: SystemTime,
}

/// The label `result` of `xlb_health_checks_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeOutcome {
    Success,
    /// Refused, reset, or answered wrongly.
    Failure,
    Timeout,
}

/// What is believed of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up,
    Down,
}

/// What the probes are to watch. Sent whole on a `tokio::sync::watch`; the prober keeps what did not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub backend: BackendName,
    /// The backend's address, with the port that the check asks for.
    pub address: std::net::SocketAddr,
    pub check: HealthCheck,
    /// What is believed already (adopted from pinned maps); `None`: the first result alone decides.
    pub believed: Option<Health>,
}

/// How a backend can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopState {
    Resolved(Hop),
    /// The route is known, the neighbour is not (it is being asked for).
    Unresolved {
        next_hop: IpAddr,
        interface: String,
    },
    /// The route leaves through an interface that is not configured.
    Outside {
        interface: String,
    },
    NoRoute,
}

/// What the API asks of the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Status,
    Services,
    Backends { service: Option<String> },
    Health,
    Probe { backend: BackendName },
    Flows(view::FlowQuery),
    FlowCount,
    Stats,
    Metrics,
    Reload,
    Detach,
    AddBackend { backend: BackendName, body: view::NewBackend },
    RemoveBackend { backend: BackendName },
    PatchBackend { backend: BackendName, body: view::BackendPatch },
}

/// A good answer.
#[derive(Debug)]
pub enum Answer {
    Status(view::Status),
    Services(Vec<view::Service>),
    Backends(Vec<view::Backend>),
    Backend(view::Backend),
    Health(Vec<view::HealthState>),
    /// Where the API's own task is to probe: the controller never waits for the network.
    Probe(Target),
    Flows(Vec<view::Flow>),
    FlowCount(view::FlowCount),
    Stats(Vec<view::Stats>),
    Metrics(String),
    Reload(view::Reloaded),
    Done,
}

/// A refusal, as RFC 9457 tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub detail: String,
    /// Mistakes of a configuration file, `file:line:column: message`.
    pub mistakes: Vec<String>,
}

/// Each has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400, exit 2: the request makes no sense.
    Invalid,
    /// 404, exit 3.
    NotFound,
    /// 409, exit 5.
    Conflict,
    /// 422, exit 6.
    InvalidConfiguration,
    /// 500, exit 1.
    Failed,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), mistakes: Vec::new() }
    }
}

/// When something began, on both clocks: one to subtract, one to show.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    pub instant: Instant,
    pub time: SystemTime,
}
