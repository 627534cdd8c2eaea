//! What the operator wants, validated: if a [`Spec`] exists, it makes sense.
//!
//! ```text
//!   xlb.toml ─ load ─▶ file (as written) ─ validate ─▶ Spec ─┐
//!                    └─ all mistakes at once ─┘              ├─ Overlay::apply ─▶ what is wanted
//!   overlay.json ─ store ─▶ Overlay (changed by command) ────┘
//! ```
//!
//! `rules` hold for both. Only `load` and `store` do IO.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use lb_common::{net::Protocol, service::Mode};

mod file;
mod load;
pub(crate) mod memory;
mod mistakes;
pub(crate) mod overlay;
pub(crate) mod rules;
pub(crate) mod store;
mod table;
mod validate;
mod value;

pub use self::{
    load::{parse, read},
    mistakes::{Mistake, Mistakes},
    value::parse_endpoint,
};

/// Everything the operator wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub interfaces: Vec<Interface>,
    pub api: Api,
    /// Where Prometheus scrapes; `None` switches the listener off.
    pub metrics: Option<SocketAddr>,
    pub limits: Limits,
    pub services: Vec<Service>,
}

impl Spec {
    /// Only full-nat takes ports of this host.
    pub fn needs_source_ports(&self) -> bool {
        self.services.iter().any(|service| service.mode == Mode::FullNat)
    }
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub name: String,
    pub mode: AttachMode,
}

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the stack, behind the allocation of an skb.
    Generic,
    /// Native on all interfaces, else generic on all.
    #[default]
    Auto,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    pub socket: PathBuf,
}

/// How much the flow tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub flows: u32,
    pub flows_ipv6: u32,
    pub half_open_flows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 262_144, flows_ipv6: 65_536, half_open_flows: 65_536 }
    }
}

/// What clients dial, and who answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    /// At least one; one port per family need not be the same.
    pub listen: Vec<SocketAddr>,
    pub protocol: Protocol,
    pub mode: Mode,
    /// full-nat: addresses of this host that backends see.
    pub sources: Vec<IpAddr>,
    pub scheduler: Scheduler,
    /// `None`: backends are always taken for up.
    pub health: Option<HealthCheck>,
    pub backends: Vec<Backend>,
}

/// How a new flow gets its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    #[default]
    RoundRobin,
}

impl Scheduler {
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
        }
    }
}

/// A real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    /// 0: no new flows.
    pub weight: u32,
    /// Used only when no other backend of its family is up.
    pub backup: bool,
}

/// How a backend's health is found out.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    /// Another port than the backend's own.
    pub port: Option<u16>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Connects.
    Tcp,
    /// Asks for a path: up on 2xx and 3xx.
    Http { path: String, host: Option<String> },
}

/// `SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName {
    pub service: String,
    pub backend: String,
}

impl BackendName {
    pub fn new(service: &str, backend: &str) -> Self {
        Self { service: service.to_owned(), backend: backend.to_owned() }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.backend)
    }
}

impl FromStr for BackendName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
                Ok(Self::new(service, backend))
            }
            Some(_) | None => Err(format!("`{text}` is not SERVICE/BACKEND")),
        }
    }
}
