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

use lb_common::{limits::Room, net::Protocol, service::Mode};
use serde::Deserialize;

use crate::{
    named::{Named, json_by_name, named},
    probe::Probe,
};

mod command;
mod file;
mod health;
mod load;
pub(crate) mod overlay;
pub(crate) mod rules;
pub mod source_ports;
pub(crate) mod store;
mod validate;

pub use self::{
    command::{AdminState, BackendPatch, NewBackend},
    load::{parse, read},
    rules::DEFAULT_WEIGHT,
};
pub use crate::document::{
    mistakes::{Mistake, Mistakes},
    value::parse_endpoint,
};

/// Everything the operator wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// At least one, each once. Read only at the start.
    pub interfaces: Vec<Interface>,
    /// Read only at the start.
    pub api: Api,
    /// Where Prometheus scrapes; `None` switches the listener off.
    pub metrics: Option<SocketAddr>,
    /// In force when the maps are made; pinned maps keep their sizes.
    pub limits: Limits,
    /// At least one, in the order of the file.
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
    /// At most 15 bytes.
    pub name: String,
    /// What the operator asks for; the status shows what came of it.
    pub mode: AttachMode,
}

/// Where in the kernel the program is to run.
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

named!(AttachMode { Native = "native", Generic = "generic", Auto = "auto", });

/// Where in the kernel a program runs that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    /// In the driver.
    Native,
    /// In the stack, behind the allocation of an skb.
    Generic,
}

named!(LinkMode { Native = "native", Generic = "generic", });

/// `None`: it is not attached.
impl Named for Option<LinkMode> {
    const ALL: &'static [Self] = &[Some(LinkMode::Native), Some(LinkMode::Generic), None];

    fn name(self) -> &'static str {
        self.map_or("none", LinkMode::name)
    }
}

/// The control socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// An absolute path of at most 107 bytes.
    pub socket: PathBuf,
}

/// How much the flow tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// IPv4 flows to hold, rounded up to the shape of the table.
    pub flows: u32,
    /// IPv6 flows to hold, rounded up to the shape of the table.
    pub flows_ipv6: u32,
    /// The most that may be half-open, per family.
    pub half_open_flows: u32,
    /// Services.
    pub services: u32,
    /// Backends, over all services.
    pub backends: u32,
}

impl Limits {
    /// What the maps for services and backends are to be made for.
    pub const fn room(&self) -> Room {
        Room { services: self.services, backends: self.backends }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 262_144, flows_ipv6: 65_536, half_open_flows: 65_536, services: 1024, backends: 16_384 }
    }
}

/// The addresses that clients connect to, and the backends behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// 1 to 63 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// At least one; one port per family need not be the same.
    pub listen: Vec<SocketAddr>,
    /// Of all that it listens on.
    pub protocol: Protocol,
    /// What of a packet is rewritten.
    pub mode: Mode,
    /// full-nat: addresses of this host that backends see.
    pub sources: Vec<IpAddr>,
    /// Each family is scheduled for itself.
    pub scheduler: Scheduler,
    /// `None`: backends are always taken for up.
    pub health: Option<HealthCheck>,
    /// In the order of the file, then those that commands added.
    pub backends: Vec<Backend>,
}

/// How a new flow gets its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// Eligible backends in turn, whatever their weights.
    #[default]
    RoundRobin,
}

named!(Scheduler { RoundRobin = "round-robin", });
json_by_name!(Scheduler);
named!(Protocol { Tcp = "tcp", Udp = "udp", });
named!(Mode { FullNat = "full-nat", Nat = "nat", });

/// A real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Unique within its service.
    pub name: String,
    /// Where requests go: unique within its service, and no address of ours.
    pub address: SocketAddr,
    /// 0 to 1000; 0: no new flows.
    pub weight: u32,
    /// Used only when no other backend of its family is up.
    pub backup: bool,
}

/// How a backend's health is found out.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is done each time.
    pub probe: Probe,
    /// From one probe to the next.
    pub interval: Duration,
    /// For a whole probe; no longer than the interval.
    pub timeout: Duration,
    /// Good results in a row that make a backend up.
    pub rise: u32,
    /// Bad results in a row that make a backend down.
    pub fall: u32,
    /// `None`: the backend's own.
    pub port: Option<u16>,
}

/// `SERVICE/BACKEND`; in the API, two parts of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct BackendName {
    /// Before the slash, which is in no name.
    pub service: String,
    /// After the slash; unique within the service.
    pub backend: String,
}

impl BackendName {
    /// Of names that are valid: nothing is checked.
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
