//! The interface to the maps: the kernel's maps in the daemon, memory in tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use lb_common::{
    backend::{Backend, BackendId},
    counters::{ActionCounters, BackendCounters, BackendNumber, ServiceCounters, ServiceNumber, Tally},
    hop::{Hop, Interface, InterfaceIndex},
    limits::Room,
    net::{Be16, Protocol},
    pool::{Pool, PoolNumber, SlotIndex, SlotRange, SourceSetNumber},
    quiet::Quiet,
    reason::Reason,
    service::Reject,
    settings::PortPool,
};

use crate::{
    hash_key::HashKey,
    shared::Shared,
    spec::{BackendName, LinkMode},
};

mod attach;
mod backends;
mod detach;
mod filter;
mod first_release;
pub(crate) mod flows;
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
pub mod shared_flow;
pub(crate) mod sharing;
mod takeover;

pub use self::{
    attach::Links,
    detach::{DetachError, detach},
    kernel::{
        KernelDatapath,
        grace_period::wait as wait_for_grace_period,
        neighbour_requests::{NeighbourRequests, forward_neighbour_requests},
        object, ticks_now,
        traces::{Traces, log_traces},
    },
    open::{Fit, OpenError, Opened, judge, open},
    past::{Counted, Sum},
    pins::unfinished,
    preflight::{Cause, native_mtu_max},
    shared_flow::SharedFlow,
    sharing::{Adopted, Ending, FlowEvents, Placement, Reading, Resets, SharedTables},
};

/// Access to the maps. Only the controller writes to one.
pub trait Datapath {
    /// Reads the contents of the maps.
    fn observe(&mut self) -> anyhow::Result<Snapshot>;
    /// Applies one operation.
    fn apply(&mut self, op: &Op) -> anyhow::Result<()>;
    /// Returns when no packet in flight can still read what was replaced before.
    fn grace_period(&mut self) -> anyhow::Result<()>;
    /// Ends the flows of `retired` backend ids, and those that have expired, in one chunk of the tables (see
    /// [`Datapath::flows`]).
    fn sweep(&mut self, from: u32, retired: &BTreeSet<BackendId>) -> anyhow::Result<Option<u32>>;
    /// Visits the flows of one chunk of the tables that have not expired, including those of removed backends.
    /// The chunk begins at `from` (0: the first). Returns where the next one begins. A chunk takes
    /// milliseconds whatever the size of the tables, so a change never waits for the end of a walk.
    fn flows(&mut self, from: u32, visit: &mut dyn FnMut(&Flow)) -> anyhow::Result<Option<u32>>;
    /// Ends those flows of one chunk (see [`Datapath::flows`]) for which `select` returns true. Returns how many it ended, and
    /// where the next chunk begins.
    fn end_flows(
        &mut self,
        from: u32,
        select: &mut dyn FnMut(&Flow) -> bool,
    ) -> anyhow::Result<(u64, Option<u32>)>;
    /// The counters of a backend, summed over all CPUs.
    fn backend_counters(&self, number: BackendNumber) -> anyhow::Result<BackendCounters>;
    /// The packets for a service that were not forwarded, summed over all CPUs.
    fn service_counters(&self, number: ServiceNumber) -> anyhow::Result<ServiceCounters>;
    /// Has the program ejected the backend?
    fn is_ejected(&self, id: BackendId) -> bool;
    /// Ends the ejection of a backend.
    fn readmit(&mut self, id: BackendId);
    /// By name: counts of names that no longer have a counter number.
    fn past(&self) -> &BTreeMap<String, Counted>;
    /// The counters of the program, summed over all CPUs.
    fn totals(&self) -> anyhow::Result<Totals>;
}

/// The contents of the maps as plain values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By place (`id % MAX_PLACES`).
    pub backends: BTreeMap<u32, Backend>,
    /// Names by counter number, so that counters and flows keep their names over a restart.
    pub backend_names: BTreeMap<BackendNumber, BackendName>,
    /// By counter number.
    pub service_names: BTreeMap<ServiceNumber, String>,
    /// Backend ids, by the first slot of their range.
    pub slots: BTreeMap<SlotIndex, Shared<Vec<BackendId>>>,
    /// By pool number, at most `MAX_MEMBERS`.
    pub members: BTreeMap<PoolNumber, Vec<BackendId>>,
    /// full-nat: local addresses that backends see as the client, at most `MAX_SOURCES`, by set number, which is
    /// not 0.
    pub sources: BTreeMap<SourceSetNumber, Vec<IpAddr>>,
    /// Active pools, by pool number.
    pub pools: BTreeMap<PoolNumber, Pool>,
    /// By listen address.
    pub services: BTreeMap<Listen, ServiceValue>,
    /// By the address of a backend: the listen address of its service, whose flows are [computed](ServiceValue::computed).
    pub origins: BTreeMap<Listen, Listen>,
    /// By interface index.
    pub interfaces: BTreeMap<InterfaceIndex, Interface>,
    /// Counts up modulo 2^24, so that an id is not reused while flows may refer to it.
    pub next_backend_id: BackendId,
    /// Raised when routes or neighbours change: flows then look up their client's next hop again.
    pub hop_generation: u32,
    /// The key of the pickers that hash.
    pub hash_key: HashKey,
    /// Are packets of no known flow answered?
    pub quiet: Quiet,
}

/// A [`lb_common::service::ServiceKey`] with an order. Port 0 marks an address of the load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// The address of a service. With port 0: any address of the load balancer.
    pub address: IpAddr,
    /// In network order. 0: not a service.
    pub port: Be16,
    /// Part of the key: TCP and UDP on one port are two services.
    pub protocol: Protocol,
}

impl Listen {
    /// The first one in order.
    pub const FIRST: Self =
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: Be16::new(0), protocol: Protocol::Tcp };
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
    /// The pool that new flows are scheduled from.
    pub pool: PoolNumber,
    /// The counter number of the service, which also leads to its name.
    pub counters: ServiceNumber,
    /// What happens to packets without a flow or a backend. Not read under port 0.
    pub reject: Reject,
    /// The pool in which the backend of a flow follows from its tuple: see
    /// [`computed_pool`](lb_common::service::Service::computed_pool).
    pub computed: Option<PoolNumber>,
}

impl ServiceValue {
    /// Its pools.
    pub fn pools(self) -> impl Iterator<Item = PoolNumber> {
        let own = (self.pool != lb_common::service::Service::NO_POOL).then_some(self.pool);
        own.into_iter().chain(self.computed)
    }
}

/// One operation. After each, no reachable slot refers to a missing backend, and flows of a service reach only its
/// backends.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// By interface index. Packets may leave through it from now on.
    PutInterface(InterfaceIndex, Interface),
    /// By counter number. The counters start at zero under another name; the old counts stay with the old name.
    PutBackendName(BackendNumber, BackendName),
    /// By counter number, as for backends.
    PutServiceName(ServiceNumber, String),
    /// The place follows from the id.
    PutBackend(Backend),
    /// By first slot: backend ids, written to slots that no pool uses.
    PutSlots(SlotIndex, Shared<Vec<BackendId>>),
    /// By set number. No pool uses the set while it is written.
    PutSources(SourceSetNumber, Vec<IpAddr>),
    /// By pool number: backends that its new flows also try. Packets may be reading them.
    PutMembers(PoolNumber, Vec<BackendId>),
    /// By pool number. The pool is active from now on.
    PutPool(PoolNumber, Pool),
    /// Clients are served from now on.
    PutService(Listen, ServiceValue),
    /// By the address of a backend: its segments of no known flow may belong to the service at this listen address.
    PutOrigin(Listen, Listen),
    /// Written before the backends whose ids it is past.
    SetNextBackendId(BackendId),
    /// Flows look up their client's next hop again.
    SetHopGeneration(u32),
    /// New flows are hashed with this key from now on.
    SetHashKey(HashKey),
    /// Whether packets of no known flow are answered.
    SetQuiet(Quiet),
    /// By the address of a backend. Before the service is deleted.
    DeleteOrigin(Listen),
    /// Clients are no longer served.
    DeleteService(Listen),
    /// By pool number.
    DeletePool(PoolNumber),
    /// By pool number: it has none any more.
    DeleteMembers(PoolNumber),
    /// Slots that no pool uses any more.
    DeleteSlots(SlotRange),
    /// By set number. No pool uses the set any more.
    DeleteSources(SourceSetNumber),
    /// By place. Its flows are dead from now on.
    DeleteBackend(u32),
    /// By counter number, which becomes free. The counts stay with the name.
    DeleteServiceName(ServiceNumber),
    /// By counter number, as for services.
    DeleteBackendName(BackendNumber),
    /// By interface index. Nothing leaves through it any more.
    DeleteInterface(InterfaceIndex),
}

impl Op {
    /// The number of the pool that this step changes, and its word after the step.
    pub const fn pool_change(&self) -> Option<(PoolNumber, Pool)> {
        if let Self::PutPool(number, pool) = self {
            return Some((*number, *pool));
        }
        if let Self::DeletePool(number) = self { Some((*number, Pool::NONE)) } else { None }
    }
}

/// For errors, after "cannot": the operation and the entry that it is about.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutInterface(index, _) => write!(f, "write interface {index}"),
            Self::PutBackendName(number, name) => write!(f, "write name {name} of backend counters {number}"),
            Self::PutServiceName(number, name) => write!(f, "write name {name} of service counters {number}"),
            Self::PutBackend(backend) => write!(f, "write backend {}", backend.id),
            Self::PutSlots(offset, ids) => write!(f, "write {} slots at {offset}", ids.len()),
            Self::PutSources(number, sources) => write!(f, "write set {number} of {} sources", sources.len()),
            Self::PutMembers(number, ids) => write!(f, "write {} members of pool {number}", ids.len()),
            Self::PutPool(number, pool) => {
                let SlotRange { offset, length } = pool.slots();
                write!(f, "activate {length} slots at {offset} for pool {number}")
            }
            Self::PutService(listen, service) => {
                write!(f, "write service {listen} with pool {}", service.pool)
            }
            Self::SetNextBackendId(id) => write!(f, "set the next backend id to {id}"),
            Self::SetHopGeneration(generation) => {
                write!(f, "set the generation of next hops to {generation}")
            }
            Self::SetHashKey(_) => write!(f, "set the hash key"),
            Self::SetQuiet(Quiet::Always) => write!(f, "stop answers to packets of no flow"),
            Self::SetQuiet(Quiet::AtFirst) => write!(f, "delay answers to packets of no flow"),
            Self::SetQuiet(Quiet::No) => write!(f, "start answers to packets of no flow"),
            Self::PutOrigin(backend, listen) => write!(f, "write origin {backend} of service {listen}"),
            Self::DeleteOrigin(backend) => write!(f, "delete origin {backend}"),
            Self::DeleteService(listen) => write!(f, "delete service {listen}"),
            Self::DeletePool(pool) => write!(f, "delete pool {pool}"),
            Self::DeleteMembers(pool) => write!(f, "delete the members of pool {pool}"),
            Self::DeleteSlots(slots) => write!(f, "delete {} slots at {}", slots.length, slots.offset),
            Self::DeleteSources(number) => write!(f, "delete set {number} of sources"),
            Self::DeleteBackend(place) => write!(f, "delete the backend at place {place}"),
            Self::DeleteServiceName(number) => write!(f, "delete the name of service counters {number}"),
            Self::DeleteBackendName(number) => write!(f, "delete the name of backend counters {number}"),
            Self::DeleteInterface(index) => write!(f, "delete interface {index}"),
        }
    }
}

/// A flow as it is in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// TCP or UDP, the only protocols that are balanced.
    pub protocol: Protocol,
    /// The client's address.
    pub client: SocketAddr,
    /// The listen address that the client sent to.
    pub listen: SocketAddr,
    /// Where requests are sent.
    pub backend: SocketAddr,
    /// The source that the backend sees: a local address (full-nat) or the client (nat).
    pub source: SocketAddr,
    /// The backend may have been removed since.
    pub backend_id: BackendId,
    /// Half-open, closing or closed; otherwise established.
    pub state: lb_common::flow::State,
    /// Time since the last packet in either direction.
    pub idle: std::time::Duration,
}

/// Counters that belong to no service or backend, summed over all CPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Packets that were not forwarded, by reason.
    pub reasons: BTreeMap<Reason, Tally>,
    /// By interface index.
    pub actions: BTreeMap<InterfaceIndex, ActionCounters>,
}

/// Sizes that were fixed when the maps were created. They stay while the pins stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// IPv4 flows that fit into the table.
    pub flows: u32,
    /// IPv6 flows that fit into the table.
    pub flows_ipv6: u32,
    /// The limit of half-open flows, per family.
    pub half_open_flows: u32,
    /// The sizes of the maps for services and backends.
    pub room: Room,
    /// Source ports for full-nat flows: those outside the host's ephemeral range when the maps were created.
    pub ports: PortPool,
    /// Those that this node gives to new flows: with a group, its share.
    pub own_ports: PortPool,
    /// Kernel memory of all maps, including the rings.
    pub map_memory_bytes: u64,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The name when interfaces were last listed.
    pub name: String,
    /// Interface index, used by links and maps.
    pub index: InterfaceIndex,
    /// Where in the kernel the program runs.
    pub mode: LinkMode,
    /// Length of the longest IP packet, in bytes.
    pub mtu: u32,
    /// The interface's address, which is the source of packets that it sends.
    pub mac: lb_common::net::Mac,
}

/// Placeholder for the next hop of a backend that cannot be reached yet.
pub const UNRESOLVED: Hop = Hop {
    destination: lb_common::net::Mac([0; 3]),
    source: lb_common::net::Mac([0; 3]),
    interface: InterfaceIndex::NONE,
    mtu: 0,
};
