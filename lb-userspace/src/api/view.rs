//! What the API says: JSON in snake_case with units in names. These shapes do not change.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    pub config: String,
    pub interfaces: Vec<Interface>,
    pub services: Vec<ServiceSummary>,
    pub flows: FlowCount,
    /// The CLI has changed what the file says: one line each, "web/web-1: drain".
    pub overlay: Vec<String>,
    /// Odd, and how to cure it.
    pub warnings: Vec<String>,
    pub last_reload_successful: bool,
    pub last_reload_error: Option<String>,
    /// Bytes of all maps.
    pub map_memory_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// native | generic
    pub mode: String,
    pub attached: bool,
    pub mtu: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ServiceSummary {
    pub name: String,
    pub backends_up: u32,
    pub backends: u32,
    /// Backends that are given new flows.
    pub backends_serving: u32,
}

/// An element of `GET /v1/services`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Service {
    pub name: String,
    pub listen: Vec<SocketAddr>,
    /// tcp | udp
    pub protocol: String,
    /// full-nat | nat
    pub mode: String,
    pub scheduler: String,
    pub source: Vec<IpAddr>,
    pub backends: u32,
    pub backends_up: u32,
    pub backends_serving: u32,
    pub flows: u64,
}

/// An element of `GET /v1/services/{service}/backends`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Backend {
    pub service: String,
    pub name: String,
    pub address: SocketAddr,
    pub weight: u32,
    pub backup: bool,
    /// up | down | unknown
    pub health: String,
    /// ready | drain | maint
    pub admin_state: String,
    pub flows: u64,
}

/// `POST /v1/services/{service}/backends/{backend}`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    pub address: SocketAddr,
    #[serde(default = "default_weight")]
    pub weight: u32,
    #[serde(default)]
    pub backup: bool,
}

pub fn default_weight() -> u32 {
    100
}

/// `PATCH /v1/services/{service}/backends/{backend}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// What the operator says of a backend.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// Serves.
    #[default]
    Ready,
    /// No new flows; the old ones stay.
    Drain,
    /// No flows at all.
    Maint,
}

impl AdminState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// An element of `GET /v1/health`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct HealthState {
    pub service: String,
    pub name: String,
    pub address: SocketAddr,
    /// tcp | http | none
    pub check: String,
    /// up | down | unknown
    pub health: String,
    /// Seconds in this state.
    pub since_seconds: u64,
    pub last: Option<ProbeResult>,
}

/// Also the answer of `POST /v1/services/{service}/backends/{backend}/probe`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ProbeResult {
    /// success | failure | timeout
    pub result: String,
    pub detail: String,
    pub duration_seconds: f64,
}

/// The query of `GET /v1/flows`
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// SERVICE/BACKEND
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// An address or a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// An element of `GET /v1/flows`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Flow {
    /// tcp | udp
    pub protocol: String,
    pub client: SocketAddr,
    pub listen: SocketAddr,
    pub service: String,
    pub backend: String,
    pub backend_address: SocketAddr,
    /// What the backend sees.
    pub source: SocketAddr,
    /// half_open | established | closing | closed
    pub state: String,
    pub idle_seconds: f64,
}

/// `GET /v1/flows/count`
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FlowCount {
    pub half_open: u64,
    pub established: u64,
    pub closing: u64,
    pub established_max: u64,
    pub half_open_max: u64,
}

/// An element of `GET /v1/stats`: a backend, or (without `backend`) a service.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Stats {
    pub service: String,
    pub backend: Option<String>,
    pub flows: u64,
    pub new_flows_total: u64,
    pub forwarded_packets_total: u64,
    pub forwarded_bytes_total: u64,
    pub returned_packets_total: u64,
    pub returned_bytes_total: u64,
}

/// `POST /v1/reload`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Reloaded {
    /// What changed, one line each.
    pub changes: Vec<String>,
    pub warnings: Vec<String>,
}

/// RFC 9457
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
