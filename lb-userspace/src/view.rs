//! Answers of the API: JSON in snake_case with units in names. These shapes do not change.

mod cluster;
mod group;
mod status;

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    flow,
    net::Protocol,
    service::{Mode, Reject},
};
use serde::{Deserialize, Serialize};

use self::status::ready_by_default;
pub use self::status::{Announcement, Interface, Node, Presence, ServiceSummary, Status};
pub use self::{
    cluster::{Cluster, ClusterDocument, ClusterNode, ClusterPart, ClusterPush, ClusterPushed},
    group::{Group, GroupPeer},
};
use crate::{
    named::{self, json_by_name, named},
    probe::{Kind, ProbeOutcome, Role},
    spec::{AdminState, OnDown, OnRefused, Scheduler, ShareFlows},
};

/// An element of `GET /v1/services`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Service {
    /// As in the file.
    pub name: String,
    /// The addresses and ports that clients connect to.
    pub listen: Vec<SocketAddr>,
    /// For all its listen addresses.
    #[serde(with = "named")]
    pub protocol: Protocol,
    /// How packets are rewritten.
    #[serde(with = "named")]
    pub mode: Mode,
    /// How a new flow gets its backend.
    pub scheduler: Scheduler,
    /// What happens to packets without a flow or a backend.
    #[serde(with = "named")]
    pub reject: Reject,
    /// Which of its flows the other nodes of a group are told of.
    #[serde(with = "named", default)]
    pub share_flows: ShareFlows,
    /// What a client gets if a backend refuses its connection.
    #[serde(with = "named", default)]
    pub on_refused: OnRefused,
    /// What becomes of a backend's flows when it goes down.
    #[serde(with = "named", default)]
    pub on_down: OnDown,
    /// The time in which a backend that comes up gets all of its weight. 0: at once.
    #[serde(default)]
    pub slow_start_seconds: f64,
    /// While fewer backends than this are available, health is ignored. 0: never.
    #[serde(default)]
    pub panic_threshold_percent: u32,
    /// full-nat: the addresses that backends see. Empty in nat mode.
    pub source: Vec<IpAddr>,
    /// full-nat: addresses that backends see if another node of the group began the flow.
    #[serde(default)]
    pub peer_source: Vec<IpAddr>,
    /// active | partial | standby: whether its listen addresses are on this host.
    #[serde(default)]
    pub state: Presence,
    /// All backends, in any state.
    pub backends: u32,
    /// Backends that are up, or not checked.
    pub backends_up: u32,
    /// Backends that get new flows.
    pub backends_serving: u32,
    /// The quorum is reached.
    #[serde(default = "ready_by_default")]
    pub ready: bool,
    /// The service is ready while at least this many backends are available.
    #[serde(default)]
    pub quorum: u32,
    /// Backends that count for the quorum: those that would get new flows without panic.
    #[serde(default)]
    pub backends_available: u32,
    /// Half-open, established and closing, at most a second old.
    pub flows: u64,
}

/// An element of `GET /v1/services/{service}/backends`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Backend {
    /// The service that it belongs to.
    pub service: String,
    /// Unique within the service.
    pub name: String,
    /// Where requests are sent.
    pub address: SocketAddr,
    /// 0 to 1000. 0: no new flows.
    pub weight: u32,
    /// The weight with which it gets new flows. 0: it gets none. A part of `weight`, rounded up, during a slow start or
    /// according to its agent, which can also raise it.
    #[serde(default)]
    pub effective_weight: u32,
    /// Used only if no regular backend of its family can take new flows.
    pub backup: bool,
    /// It gets no new flows while it has this number of flows. 0: no limit.
    pub max_flows: u32,
    /// According to its health checks.
    pub health: Health,
    /// It has refused or not answered its last new flows: until it answers one, or a health check, it gets one at a time.
    #[serde(default)]
    pub ejected: bool,
    /// Of a database server, according to its last answers. `null`: its check finds no roles.
    #[serde(default)]
    pub role: Option<BackendRole>,
    /// How old the data of a replica may be. `null`: unknown, or it has no role.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// Set by the operator.
    pub admin_state: AdminState,
    /// Half-open, established and closing, at most a second old.
    pub flows: u64,
    /// It has no flows and can get none: they were counted after new flows had become impossible. Its server can be
    /// stopped.
    #[serde(default)]
    pub drained: bool,
}

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its checks succeed, or it has none.
    Up,
    /// Its checks fail.
    Down,
    /// No check has ended yet.
    Unknown,
}

named!(Health { Up = "up", Down = "down", Unknown = "unknown", });
json_by_name!(Health);

/// The role of a backend whose check finds roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendRole {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// It has not said, or is down.
    Unknown,
}

named!(BackendRole { Primary = "primary", Replica = "replica", Unknown = "unknown", });
json_by_name!(BackendRole);

impl From<Option<Role>> for BackendRole {
    fn from(role: Option<Role>) -> Self {
        match role {
            Some(Role::Primary) => Self::Primary,
            Some(Role::Replica) => Self::Replica,
            None => Self::Unknown,
        }
    }
}

/// An element of `GET /v1/health`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct HealthState {
    /// The service that it belongs to.
    pub service: String,
    /// The backend's.
    pub name: String,
    /// The backend's own, even if the check uses another port.
    pub address: SocketAddr,
    /// The type of the check, or none.
    #[serde(with = "named")]
    pub check: Option<Kind>,
    /// According to its health checks.
    pub health: Health,
    /// Seconds in this state.
    pub since_seconds: u64,
    /// The last probe. `null`: none has ended yet.
    pub last: Option<ProbeResult>,
}

/// The result of a probe, and the answer to `POST /v1/services/{service}/backends/{backend}/probe`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ProbeResult {
    /// How it ended.
    pub result: ProbeOutcome,
    /// For the operator: "HTTP 200", "connection refused".
    pub detail: String,
    /// Until the result was certain: connecting and, for http, the request, the status line and the headers.
    pub duration_seconds: f64,
}

/// An element of `GET /v1/roles`, and the answer to commands about roles.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ServiceRole {
    /// The service.
    pub service: String,
    /// The role that its backends need.
    pub role: Role,
    /// The backend that is the primary. `null`: none is.
    pub primary: Option<String>,
    /// Whether there is a primary, or why not.
    pub state: PrimaryState,
    /// Seconds in this state, or without a primary.
    pub since_seconds: u64,
    /// The operator has fenced it.
    pub fenced: bool,
    /// The backend that the operator has chosen among several that say primary.
    pub forced: Option<String>,
    /// The identifier of the cluster, if its engine has one.
    pub cluster: Option<String>,
    /// The highest term that was seen on a primary, if its engine has terms.
    pub term: Option<u32>,
    /// What each backend says of itself, in the order of the file.
    pub servers: Vec<ServerRole>,
}

/// Whether a service has a primary, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryState {
    /// It has one.
    Elected,
    /// Not all servers have answered yet.
    Unknown,
    /// No server says primary.
    NoClaim,
    /// One says primary, but not often enough yet.
    NotSteady,
    /// Those that say primary are outdated, or of another cluster.
    Refused,
    /// The operator has fenced the service, and there is no newer primary yet.
    Fenced,
    /// Several say primary, and none is newer.
    Contested,
}

named!(PrimaryState {
    Elected = "elected",
    Unknown = "unknown",
    NoClaim = "no_claim",
    NotSteady = "not_steady",
    Refused = "refused",
    Fenced = "fenced",
    Contested = "contested",
});
json_by_name!(PrimaryState);

/// A backend of a service with a role.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ServerRole {
    /// Unique within the service.
    pub name: String,
    /// Where requests are sent.
    pub address: SocketAddr,
    /// According to its health checks.
    pub health: Health,
    /// According to its last answers. `null`: unknown.
    pub role: Option<Role>,
    /// It gets new flows, as far as its role decides.
    pub serves: bool,
    /// It does so only if no regular one can.
    pub is_backup: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// Its place in the history of the cluster.
    pub mark: Option<String>,
    /// How old its data may be. `null`: unknown.
    pub lag_ms: Option<u64>,
    /// How much of the primary's history it lacks. `null`: unknown, or the engine does not tell.
    pub lag_bytes: Option<u64>,
}

/// The query of `GET` and `DELETE /v1/flows`
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// `None`: flows of all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// SERVICE/BACKEND; `None`: flows of all backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// An address or a network; `None`: flows of all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The most flows to list or to remove; `None`: 1000 in a list, no limit for a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// All flows: a removal without a service, backend or client must say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl FlowQuery {
    /// Does it say which flows?
    pub const fn has_filter(&self) -> bool {
        self.service.is_some() || self.backend.is_some() || self.client.is_some()
    }
}

/// The answer to `DELETE /v1/flows`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct FlowsRemoved {
    /// Flows that this request has ended.
    pub removed: u64,
}

/// An element of `GET /v1/flows`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Flow {
    /// Of the service.
    #[serde(with = "named")]
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The listen address and port that the client sent to.
    pub listen: SocketAddr,
    /// The name of the service.
    pub service: String,
    /// The name of the backend, without its service.
    pub backend: String,
    /// Where its requests are sent.
    pub backend_address: SocketAddr,
    /// The source address that the backend sees: one of xlb's (full-nat) or the client's (nat).
    pub source: SocketAddr,
    /// The state of the flow.
    pub state: FlowState,
    /// Since its last packet, either way.
    pub idle_seconds: f64,
}

/// The state of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// Its handshake is not complete.
    HalfOpen,
    /// Neither side has begun to close it.
    Established,
    /// One side has begun to close it.
    Closing,
    /// Closed by both sides. The record stays for late packets until a new flow reuses it.
    Closed,
}

named!(FlowState { HalfOpen = "half_open", Established = "established", Closing = "closing", Closed = "closed", });
json_by_name!(FlowState);

impl From<flow::State> for FlowState {
    fn from(state: flow::State) -> Self {
        if state.is_half_open() {
            Self::HalfOpen
        } else if state.is_closed() {
            Self::Closed
        } else if state.is_closing() {
            Self::Closing
        } else {
            Self::Established
        }
    }
}

/// `GET /v1/flows/count`
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FlowCount {
    /// Flows whose handshake is not complete.
    pub half_open: u64,
    /// Flows that neither side has begun to close.
    pub established: u64,
    /// Flows that one side has begun to close. Flows closed by both sides are not counted.
    pub closing: u64,
    /// The capacity of the flow tables of both families together.
    pub established_max: u64,
    /// The sum of both families' limits of half-open flows.
    pub half_open_max: u64,
}

/// An element of `GET /v1/stats`: a backend, or (without `backend`) a service.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Stats {
    /// The service, or that of the backend.
    pub service: String,
    /// `null`: the counters of the service, including those of removed backends.
    pub backend: Option<String>,
    /// Half-open, established and closing, at most a second old.
    pub flows: u64,
    /// From the pinned counters, as are all totals: a restart of the daemon does not reset them.
    pub new_flows_total: u64,
    /// From clients to backends.
    pub forwarded_packets_total: u64,
    /// Of whole frames, from clients to backends.
    pub forwarded_bytes_total: u64,
    /// From backends to clients.
    pub returned_packets_total: u64,
    /// Of whole frames, from backends to clients.
    pub returned_bytes_total: u64,
}

/// `POST /v1/reload`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Reloaded {
    /// What changed, one line each.
    pub changes: Vec<String>,
    /// Warnings about the configuration in use, one line each.
    pub warnings: Vec<String>,
}

/// A problem document (RFC 9457, 3): the answer to a request that failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Problem {
    /// A URI that identifies the kind: `urn:xlb:problem:...`, or `about:blank` if the HTTP status is sufficient.
    #[serde(rename = "type")]
    pub kind: String,
    /// A fixed summary of the kind.
    pub title: String,
    /// The response's HTTP status.
    pub status: u16,
    /// What went wrong with this request.
    pub detail: String,
    /// Errors in a configuration file, `file:line:column: message`; omitted if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
