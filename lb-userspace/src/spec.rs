//! The validated configuration. A [`Spec`] that exists is valid.
//!
//! ```text
//!   xlb.toml ─ load ─▶ file (as written) ─ validate ─▶ Spec ─┐
//!                    └─ all mistakes at once ─┘              ├─ Overlay::apply ─▶ intended state
//!   overlay.json ─ store ─▶ Overlay (changed by command) ────┘
//! ```
//!
//! `rules` apply to both. Only `load` and `store` do IO.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use lb_common::{
    limits::{DEFAULT_SLOTS, Room},
    net::Protocol,
    service::{Mode, Reject},
};
use serde::Deserialize;

use crate::{
    hash_key::{HashKey, KeyError},
    named::{Named, json_by_name, named},
    probe::{Kind, Probe},
    shared::Shared,
};

mod availability;
mod cluster;
mod command;
pub(crate) mod exec;
mod file;
mod group;
mod health;
mod load;
pub(crate) mod overlay;
mod role;
pub(crate) mod rules;
mod share_flows;
mod shared_part;
pub mod slots;
pub mod source_ports;
pub(crate) mod store;
mod validate;

pub use self::{
    availability::{Availability, OnDown, OnRefused, Percent, SLOW_START_STEPS},
    cluster::{Cluster, Endpoint},
    command::{AdminState, BackendPatch, NewBackend},
    group::{Group, Peer},
    load::{Services, Source, parse, read, read_source},
    role::{OnRoleChange, RolePolicy},
    rules::DEFAULT_WEIGHT,
    share_flows::ShareFlows,
    shared_part::{SharedPart, shared_part},
};
pub use crate::document::{
    mistakes::{Mistake, Mistakes},
    value::parse_endpoint,
};

/// The complete configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// At least one, without duplicates. Read only at start.
    pub interfaces: Vec<Interface>,
    /// Read only at start.
    pub api: Api,
    /// The address that Prometheus scrapes. `None` disables the listener.
    pub metrics: Option<SocketAddr>,
    /// Used when the maps are created. Pinned maps keep their sizes.
    pub limits: Limits,
    /// The key of the schedulers that hash.
    pub hash: Hash,
    /// `None`: others bring the addresses of the services. Read only at start.
    pub announce: Option<Announce>,
    /// The nodes that share flows. `None`: this node is alone. Read only at start.
    pub group: Option<Group>,
    /// Where the services of a fleet are stored. `None`: they are in the file. Read only at start.
    pub cluster: Option<Cluster>,
    /// How many programs of health checks may run at once, over all services.
    pub programs_at_once: u32,
    /// In the order of the file. At least one, or `[cluster]`.
    pub services: Vec<Shared<Service>>,
}

impl Spec {
    /// Only full-nat uses source ports of this host.
    pub fn needs_source_ports(&self) -> bool {
        self.services.iter().any(|service| service.mode == Mode::FullNat)
    }

    /// Reads the key of the schedulers that hash, if one is needed: the given file, or the one in the directory `state`,
    /// which is made if there is none.
    pub fn read_hash_key(&self, state: &Path) -> Result<HashKey, KeyError> {
        match &self.hash.key_file {
            Some(file) => HashKey::read(file),
            None if self.services.iter().any(|service| service.scheduler.hashes()) => {
                HashKey::read_or_make(state)
            }
            None => Ok(HashKey::default()),
        }
    }

    /// The addresses of all services, each once.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.services.iter().flat_map(|service| service.addresses()).collect()
    }

    /// What clients connect to.
    pub fn listen_addresses(&self) -> BTreeSet<IpAddr> {
        self.services.iter().flat_map(|service| service.listen.iter().map(SocketAddr::ip)).collect()
    }

    /// What is wrong with the files that health checks name, one line for each service.
    pub fn unusable_files(&self) -> Vec<String> {
        let of = |service: &Shared<Service>| {
            let why = service.health.as_ref()?.probe.check_files().err()?;
            Some(format!("the health check of service {}: {why}", service.name))
        };
        self.services.iter().filter_map(of).collect()
    }

    /// The same with the key that was read.
    #[must_use]
    pub fn with_hash_key(self, key: HashKey) -> Self {
        Self { hash: Hash { key, ..self.hash }, ..self }
    }
}

/// The key of the schedulers that hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hash {
    /// An absolute path. `None`: a file in the state directory.
    pub key_file: Option<PathBuf>,
    /// What is in it, once it was read.
    pub key: HashKey,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// At most 15 bytes.
    pub name: String,
    /// The requested mode. The status shows the mode in use.
    pub mode: AttachMode,
}

/// The requested attach mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack, after an skb is allocated.
    Generic,
    /// Native on all interfaces; otherwise generic on all.
    #[default]
    Auto,
}

named!(AttachMode { Native = "native", Generic = "generic", Auto = "auto", });

/// The attach mode in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    /// In the driver.
    Native,
    /// In the network stack, after an skb is allocated.
    Generic,
}

named!(LinkMode { Native = "native", Generic = "generic", });

/// `None`: not attached.
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

/// Where xlb puts the addresses of ready services.
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// The name of an interface, such as `lo`.
    pub device: String,
}

/// The sizes of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// IPv4 flows, rounded up to the shape of the table.
    pub flows: u32,
    /// IPv6 flows, rounded up to the shape of the table.
    pub flows_ipv6: u32,
    /// The limit of half-open flows, per family.
    pub half_open_flows: u32,
    /// Services.
    pub services: u32,
    /// Backends, over all services.
    pub backends: u32,
    /// Slots, over all services.
    pub slots: u32,
}

impl Limits {
    /// The sizes for the maps of services and backends.
    pub const fn room(&self) -> Room {
        Room { services: self.services, backends: self.backends, slots: self.slots }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 262_144,
            flows_ipv6: 65_536,
            half_open_flows: 65_536,
            services: 1024,
            backends: 16_384,
            slots: DEFAULT_SLOTS,
        }
    }
}

/// The addresses that clients connect to, and the backends behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// 1 to 63 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// At least one. Ports may differ between families.
    pub listen: Vec<SocketAddr>,
    /// For all its listen addresses.
    pub protocol: Protocol,
    /// How packets are rewritten.
    pub mode: Mode,
    /// full-nat: local addresses that backends see as the client.
    pub sources: Vec<IpAddr>,
    /// full-nat: sources of other nodes of the group. This node continues flows that have them, and begins none.
    pub peer_sources: Vec<IpAddr>,
    /// Each family is scheduled separately.
    pub scheduler: Scheduler,
    /// When it is ready, and what happens when backends fail.
    pub availability: Availability,
    /// Which backends get flows by their role in a database cluster.
    pub role: RolePolicy,
    /// What happens to packets without a flow, and to new flows without a backend.
    pub reject: Reject,
    /// Which of its flows the other nodes of a group are told of.
    pub share_flows: ShareFlows,
    /// `None`: backends are assumed to be up.
    pub health: Option<HealthCheck>,
    /// In the order of the file, then those that commands added.
    pub backends: Vec<Backend>,
}

impl Service {
    /// Where clients and backends reach it: listen addresses and sources.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.listen.iter().map(SocketAddr::ip).chain(self.all_sources())
    }

    /// full-nat: what backends see as the client, whichever node sends.
    pub fn all_sources(&self) -> impl Iterator<Item = IpAddr> {
        self.sources.iter().chain(&self.peer_sources).copied()
    }

    /// Do agents on the servers decide, too, which flows the backends get?
    pub fn has_agents(&self) -> bool {
        self.health.as_ref().is_some_and(|check| check.probe.kind() == Kind::Agent)
    }
}

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// Eligible backends in turn, regardless of weight.
    #[default]
    RoundRobin,
    /// In turn, each as often as its weight says.
    WeightedRoundRobin,
    /// To the one with the fewest flows for its weight.
    LeastConnections,
    /// The same, of two that are drawn by weight.
    RandomTwo,
    /// By the client's address: all flows of a client go to one backend.
    SourceHash,
    /// By the flow's addresses and ports.
    Maglev,
}

impl Scheduler {
    /// Does it need the key?
    pub const fn hashes(self) -> bool {
        match self {
            Self::RoundRobin | Self::WeightedRoundRobin | Self::LeastConnections | Self::RandomTwo => false,
            Self::SourceHash | Self::Maglev => true,
        }
    }
}

named!(Scheduler {
    RoundRobin = "round-robin",
    WeightedRoundRobin = "weighted-round-robin",
    LeastConnections = "least-connections",
    RandomTwo = "random-two",
    SourceHash = "source-hash",
    Maglev = "maglev",
});
json_by_name!(Scheduler);
named!(Protocol { Tcp = "tcp", Udp = "udp", });
named!(Reject { Reset = "reset", Drop = "drop", });
named!(Mode { FullNat = "full-nat", Nat = "nat", });

/// A real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Unique within its service.
    pub name: String,
    /// Where requests are sent. Unique within its service, and not an address of the load balancer.
    pub address: SocketAddr,
    /// 0 to 1000. 0: no new flows.
    pub weight: u32,
    /// Used only if no regular backend of its family can take new flows.
    pub backup: bool,
    /// It gets no new flows while it has this number of flows. 0: no limit.
    pub max_flows: u32,
}

/// How a backend's health is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// The type of check.
    pub probe: Probe,
    /// The time between starts of probes.
    pub interval: Duration,
    /// For the whole probe. At most the interval.
    pub timeout: Duration,
    /// Consecutive successes that bring a backend up.
    pub rise: u32,
    /// Consecutive failures that bring a backend down.
    pub fall: u32,
    /// `None`: the backend's own port.
    pub port: Option<u16>,
}

/// `SERVICE/BACKEND`; in the API, two path segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct BackendName {
    /// Before the slash. Names contain no slash.
    pub service: String,
    /// After the slash. Unique within the service.
    pub backend: String,
}

impl BackendName {
    /// From valid names, which are not checked again.
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
            Some(_) | None => Err(format!("`{text}` is not of the form SERVICE/BACKEND")),
        }
    }
}
