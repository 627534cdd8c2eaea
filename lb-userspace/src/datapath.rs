//! Whoever holds the maps: the kernel, or memory in tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    backend::Backend,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    hop::{Hop, Interface},
    limits::Room,
    net::{Be16, Protocol},
    pool::{Pool, SlotRange},
    reason::Reason,
    settings::PortPool,
};

use crate::spec::{BackendName, LinkMode};

mod attach;
mod detach;
mod filter;
mod flows;
mod kernel;
pub mod layout;
mod lock;
mod mapping;
#[cfg(test)]
pub(crate) mod memory;
mod names;
mod open;
mod past;
pub(crate) mod pins;
pub(crate) mod preflight;
pub mod shapes;
mod takeover;

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
    past::{Counted, Sum},
    pins::unfinished,
    preflight::{Cause, native_mtu_max},
};

/// The maps, as whoever holds them gives and takes them. Only the controller writes to one.
pub trait Datapath {
    /// Reads back what is in the maps.
    fn observe(&mut self) -> anyhow::Result<Snapshot>;
    /// Takes one safe step.
    fn apply(&mut self, op: &Op) -> anyhow::Result<()>;
    /// Returns when no packet that is under way reads what was in force before.
    fn grace_period(&mut self) -> anyhow::Result<()>;
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
    /// By slot (`id % MAX_PLACES`).
    pub backends: BTreeMap<u32, Backend>,
    /// Names by number of counters, so that counters and flows keep their names over a restart.
    pub backend_names: BTreeMap<u32, BackendName>,
    /// By number of counters.
    pub service_names: BTreeMap<u32, String>,
    /// Ids of backends, by the slot that their range begins with.
    pub slots: BTreeMap<u32, Vec<u32>>,
    /// full-nat: addresses of this host that backends see, at most `MAX_SOURCES`, by number of the set, which is not 0.
    pub sources: BTreeMap<u32, Vec<IpAddr>>,
    /// What is in force, by number of pool.
    pub pools: BTreeMap<u32, Pool>,
    /// By what clients dial.
    pub services: BTreeMap<Listen, ServiceValue>,
    /// By interface index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Counts up, modulo 2^24, so that no id is given twice while flows may name it.
    pub next_backend_id: u32,
    /// Raised when routes or neighbours change: flows then look up their client's next hop again.
    pub hop_generation: u32,
}

/// A [`lb_common::service::ServiceKey`] with an order. Port 0 marks an address that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// The service's, or under port 0 any that is ours.
    pub address: IpAddr,
    /// In network order; 0: no service.
    pub port: Be16,
    /// Part of the key: TCP and UDP on one port are two services.
    pub protocol: Protocol,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol} {}", SocketAddr::new(self.address, self.port.get()))
    }
}

/// A [`lb_common::service::Service`]: `pool` is `Service::NO_POOL` under port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceValue {
    /// Whose table schedules for it.
    pub pool: u32,
    /// The number of the service's counters and name.
    pub counters: u32,
}

/// One step. After each, no reachable slot names a missing backend, and flows of a service reach only its backends.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// By interface index: packets may leave through it from here on.
    PutInterface(u32, Interface),
    /// By number of counters, which begin at zero under another name. What they counted stays with the name of before.
    PutBackendName(u32, BackendName),
    /// By number of counters, like that of a backend.
    PutServiceName(u32, String),
    /// The slot follows from the id.
    PutBackend(Backend),
    /// By first slot: ids of backends, in slots that no pool names while they are written.
    PutSlots(u32, Vec<u32>),
    /// By number of the set, which no pool names while it is written.
    PutSources(u32, Vec<IpAddr>),
    /// By number of pool: what is in force from here on.
    PutPool(u32, Pool),
    /// Clients are served from here on.
    PutService(Listen, ServiceValue),
    /// Before the backends whose ids it counts past.
    SetNextBackendId(u32),
    /// Flows look up their client's next hop again.
    SetHopGeneration(u32),
    /// Clients are served until here.
    DeleteService(Listen),
    /// By number of pool.
    DeletePool(u32),
    /// Slots that no pool names any more.
    DeleteSlots(SlotRange),
    /// By number of the set, which no pool names any more.
    DeleteSources(u32),
    /// By slot: its flows are dead from here on.
    DeleteBackend(u32),
    /// By number of counters, which are free then. What they counted stays with the name.
    DeleteServiceName(u32),
    /// By number of counters, like that of a service.
    DeleteBackendName(u32),
    /// By interface index: nothing leaves through it any more.
    DeleteInterface(u32),
}

impl Op {
    /// The number of the pool that this step changes, and its word after the step.
    pub const fn pool_change(&self) -> Option<(u32, Pool)> {
        if let Self::PutPool(number, pool) = self {
            return Some((*number, *pool));
        }
        if let Self::DeletePool(number) = self { Some((*number, Pool::NONE)) } else { None }
    }
}

/// For errors: the step, and the entry that it is about.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutInterface(index, _) => write!(f, "put interface {index}"),
            Self::PutBackendName(number, name) => write!(f, "put name {name} of backend counters {number}"),
            Self::PutServiceName(number, name) => write!(f, "put name {name} of service counters {number}"),
            Self::PutBackend(backend) => write!(f, "put backend {}", backend.id),
            Self::PutSlots(offset, ids) => write!(f, "put {} slots at {offset}", ids.len()),
            Self::PutSources(number, sources) => write!(f, "put set {number} of {} sources", sources.len()),
            Self::PutPool(number, pool) => {
                let SlotRange { offset, length } = pool.slots();
                write!(f, "put {length} slots at {offset} in force for pool {number}")
            }
            Self::PutService(listen, service) => write!(f, "put service {listen} with pool {}", service.pool),
            Self::SetNextBackendId(id) => write!(f, "set the next backend id to {id}"),
            Self::SetHopGeneration(generation) => {
                write!(f, "set the generation of next hops to {generation}")
            }
            Self::DeleteService(listen) => write!(f, "delete service {listen}"),
            Self::DeletePool(pool) => write!(f, "delete pool {pool}"),
            Self::DeleteSlots(slots) => write!(f, "delete {} slots at {}", slots.length, slots.offset),
            Self::DeleteSources(number) => write!(f, "delete set {number} of sources"),
            Self::DeleteBackend(slot) => write!(f, "delete the backend of slot {slot}"),
            Self::DeleteServiceName(number) => write!(f, "delete the name of service counters {number}"),
            Self::DeleteBackendName(number) => write!(f, "delete the name of backend counters {number}"),
            Self::DeleteInterface(index) => write!(f, "delete interface {index}"),
        }
    }
}

/// A flow as the table has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// TCP or UDP: nothing else is balanced.
    pub protocol: Protocol,
    /// Who dialled.
    pub client: SocketAddr,
    /// What was dialled.
    pub listen: SocketAddr,
    /// Where the requests go.
    pub backend: SocketAddr,
    /// What the backend sees: an address of ours (full-nat) or the client (nat).
    pub source: SocketAddr,
    /// Whose flow it is; the backend may have left.
    pub backend_id: u32,
    /// Half-open, closing or closed; else it is established.
    pub state: lb_common::flow::State,
    /// Since its last packet, either way.
    pub idle: std::time::Duration,
}

/// All counters, summed over CPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// By number of counters.
    pub backends: BTreeMap<u32, BackendCounters>,
    /// By number of counters: what the service itself refused.
    pub services: BTreeMap<u32, ServiceCounters>,
    /// Packets that were not forwarded, by the reason why.
    pub reasons: BTreeMap<Reason, Tally>,
    /// By name: what numbers counted that have lost it.
    pub past: BTreeMap<String, Counted>,
    /// By interface index.
    pub actions: BTreeMap<u32, ActionCounters>,
}

/// What the kernel was found to have or given at start: it stays while the pins stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// IPv4 flows that the table has room for.
    pub flows: u32,
    /// IPv6 flows that the table has room for.
    pub flows_ipv6: u32,
    /// The most that may be half-open, per family.
    pub half_open_flows: u32,
    /// What the maps for services and backends were made for.
    pub room: Room,
    /// Source ports of full-nat flows, as the host left them over when the maps were made.
    pub ports: PortPool,
    /// What the kernel takes for all maps, rings included.
    pub map_memory_bytes: u64,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// As the kernel had it at the last look.
    pub name: String,
    /// What links and maps know it by.
    pub index: u32,
    /// Where in the kernel the program runs.
    pub mode: LinkMode,
    /// Bytes of the longest IP packet.
    pub mtu: u32,
    /// Its own, which packets that it sends have as source.
    pub mac: lb_common::net::Mac,
}

/// Unused hop of a backend that cannot be reached yet.
pub const UNRESOLVED: Hop = Hop {
    destination: lb_common::net::Mac([0; 3]),
    source: lb_common::net::Mac([0; 3]),
    interface: 0,
    mtu: 0,
};
