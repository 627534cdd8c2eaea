//! Whoever holds the maps: the kernel, or memory in tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    backend::Backend,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    hop::{Hop, Interface},
    net::{Be16, Protocol},
    reason::Reason,
    service::Mode,
    settings::PortPool,
};

use crate::spec::BackendName;

mod attach;
mod detach;
mod filter;
mod flows;
mod kernel;
mod lock;
mod mapping;
#[cfg(test)]
pub(crate) mod memory;
mod names;
mod open;
pub(crate) mod pins;
pub(crate) mod preflight;

pub use self::{
    attach::Links,
    detach::{DetachError, detach},
    kernel::{
        KernelDatapath,
        asks::{Asks, asks},
        object,
        traces::{Traces, traces},
    },
    open::{Fit, OpenError, Opened, judge, open},
    pins::unfinished,
    preflight::{Cause, native_mtu_max},
};

/// The maps, as whoever holds them gives and takes them. Only the controller writes to one.
pub trait Datapath {
    /// Reads back what is in the maps.
    fn observe(&mut self) -> anyhow::Result<Snapshot>;
    /// Takes one safe step.
    fn apply(&mut self, op: &Op) -> anyhow::Result<()>;
    /// Forgets the flows of backend ids that no longer answer for them: their records and hints are freed.
    /// Works through one stretch of the tables (see [`Datapath::flows`]).
    fn sweep(&mut self, from: u32, retired: &BTreeSet<u32>) -> anyhow::Result<Option<u32>>;
    /// Visits the flows of one stretch of the tables that have not expired, also those of backends that have left:
    /// the stretch that begins at `from` (0: the first). Returns where the next one begins. A stretch takes
    /// milliseconds, whatever the size of the tables, so that a change never waits for the end of a walk.
    fn flows(&mut self, from: u32, visit: &mut dyn FnMut(&Flow)) -> anyhow::Result<Option<u32>>;
    /// Sums the counters over all CPUs.
    fn totals(&mut self) -> anyhow::Result<Totals>;
}

/// The contents of the maps as plain values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By slot (`id % MAX_BACKENDS`).
    pub backends: BTreeMap<u32, Backend>,
    /// Names by number of counters, so that counters and flows keep their names over a restart.
    pub backend_names: BTreeMap<u32, BackendName>,
    pub service_names: BTreeMap<u32, String>,
    pub tables: BTreeMap<u32, Table>,
    /// Pool -> table.
    pub pools: BTreeMap<u32, u32>,
    pub services: BTreeMap<Listen, ServiceValue>,
    /// By interface index.
    pub interfaces: BTreeMap<u32, Interface>,
    pub next_backend_id: u32,
    pub hop_generation: u32,
}

/// A [`lb_common::service::ServiceKey`] with an order. Port 0 marks an address that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    pub address: IpAddr,
    pub port: Be16,
    pub protocol: Protocol,
}

/// A [`lb_common::service::Service`]: `pool` is `Service::NO_POOL` under port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceValue {
    pub pool: u32,
    pub counters: u32,
}

/// A [`lb_common::service::SlotTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub mode: Mode,
    /// At most `MAX_SOURCES`.
    pub sources: Vec<IpAddr>,
    /// Backend ids, at most `MAX_SLOTS`.
    pub backends: Vec<u32>,
}

/// One step. After each, no reachable slot names a missing backend, and flows of a service reach only its backends.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    PutInterface(u32, Interface),
    PutBackendName(u32, BackendName),
    PutServiceName(u32, String),
    /// The slot follows from the id.
    PutBackend(Backend),
    PutTable(u32, Table),
    PutPool(u32, u32),
    PutService(Listen, ServiceValue),
    SetNextBackendId(u32),
    SetHopGeneration(u32),
    DeleteService(Listen),
    DeletePool(u32),
    DeleteTable(u32),
    /// By slot: its flows are dead from here on.
    DeleteBackend(u32),
    DeleteServiceName(u32),
    DeleteBackendName(u32),
    DeleteInterface(u32),
}

/// A flow as the table has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub protocol: Protocol,
    pub client: std::net::SocketAddr,
    pub listen: std::net::SocketAddr,
    pub backend: std::net::SocketAddr,
    pub source: std::net::SocketAddr,
    pub backend_id: u32,
    pub state: lb_common::flow::State,
    pub idle: std::time::Duration,
}

/// All counters, summed over CPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// By number of counters.
    pub backends: BTreeMap<u32, BackendCounters>,
    pub services: BTreeMap<u32, ServiceCounters>,
    pub reasons: BTreeMap<Reason, Tally>,
    /// By interface index.
    pub actions: BTreeMap<u32, ActionCounters>,
}

/// What the kernel was found to have or given at start: it stays while the pins stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub flows: u32,
    pub flows_ipv6: u32,
    pub half_open_flows: u32,
    pub ports: PortPool,
    pub map_memory_bytes: u64,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub name: String,
    pub index: u32,
    /// "native" | "generic"
    pub mode: &'static str,
    pub mtu: u32,
    pub mac: lb_common::net::Mac,
}

/// Unused hop of a backend that cannot be reached yet.
pub const UNRESOLVED: Hop = Hop {
    destination: lb_common::net::Mac([0; 3]),
    source: lb_common::net::Mac([0; 3]),
    interface: 0,
    mtu: 0,
};
