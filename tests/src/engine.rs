//! What runs rows: the packet core in memory, or the loaded program in the kernel. Both must do the same.

use lb_common::{
    clock::Ticks,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    event::NeighbourWanted,
    flow::{Control, Deltas, FlowId, Owner, Proof, Record, RecordIndex, State},
    hop::{ClientHop, HopStamp},
    net::Ports,
};
use std::net::IpAddr;

use crate::world::World;

/// The largest shape that a world may have: engines create their tables once.
pub const MAX_BUCKETS: u32 = 128;
/// No world has more services (and so pools), or more backends.
pub const MAX_NUMBERS: u32 = 8;
/// No row assigns more ids to backends.
pub const MAX_IDS: u32 = 128;

/// Runs packets in a world.
pub trait Engine {
    /// Starts afresh: no flows, all counters zero.
    fn reset(&mut self, world: &World) -> anyhow::Result<()>;
    /// Applies a change of the controller: flows and counters stay.
    fn load(&mut self, world: &World) -> anyhow::Result<()>;
    /// Runs the program on a frame that an interface received.
    fn run(&mut self, interface: u32, frame: &[u8]) -> anyhow::Result<Outcome>;
    /// The same on a CPU that is preempted before some of its accesses to shared memory, while another CPU acts. Returns
    /// how many of the pauses were not reached.
    fn preempt(
        &mut self,
        _interface: u32,
        _frame: &[u8],
        _pauses: Vec<Pause>,
    ) -> anyhow::Result<(Outcome, usize)> {
        anyhow::bail!("this engine cannot preempt its CPUs")
    }
    /// What was counted since the reset.
    fn counters(&mut self) -> anyhow::Result<Counters>;
    /// The program's flow table.
    fn memory(&mut self) -> anyhow::Result<Memory>;
}

/// The number of accesses since the pause before, and what another CPU does then.
pub type Pause = (usize, Box<dyn FnOnce(&mut dyn Engine)>);

/// The program's verdict on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_PASS`: to the host.
    Pass,
    /// `XDP_DROP`: dropped.
    Drop,
    /// `XDP_TX`: out of the interface where it arrived.
    Transmit,
    /// `XDP_REDIRECT`: out of another interface.
    Redirect,
}

/// A frame after the program, and the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The program's verdict.
    pub action: Action,
    /// As the program left it, whether it is sent or not.
    pub frame: Vec<u8>,
    /// The neighbour request to the daemon.
    pub asked: Vec<NeighbourWanted>,
    /// The flows that were reported to the daemon, because other nodes must know of them.
    pub reported: Vec<FlowId>,
}

/// Everything that is counted, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By place in `Reason::ALL`: what was not forwarded, and why.
    pub reasons: Vec<Tally>,
    /// By place in `world::network::INTERFACES`.
    pub actions: Vec<ActionCounters>,
    /// By place in [`World`], over all services; there are [`MAX_NUMBERS`].
    pub backends: Vec<BackendCounters>,
    /// By place in [`World`]; there are [`MAX_NUMBERS`].
    pub services: Vec<ServiceCounters>,
}

/// Everything that is remembered, record by record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// IPv4 flows, then IPv6 flows, in the order of their table.
    pub flows: Vec<Flow>,
    /// Family's place, line of the reply index, number of the entry, entry.
    pub reply_index: Vec<(usize, u32, usize, u64)>,
    /// The number of half-open flows, by family.
    pub half_open: [u64; 2],
    /// The turn of each pool, and the number of its ejected backends.
    pub turns: Vec<(u64, u64)>,
    /// The flows and the ejection word of each backend, by id. There are [`MAX_IDS`].
    pub loads: Vec<(u64, u64)>,
}

/// A record that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its place in the table.
    pub index: RecordIndex,
    /// Tag, state and generation.
    pub control: Control,
    /// The source of requests.
    pub client: IpAddr,
    /// The destination of requests: an address of the service.
    pub listen: IpAddr,
    /// The client's port, then the service's.
    pub request_ports: Ports,
    /// The backend's id and the protocol.
    pub owner: Owner,
    /// The backend's port, then the source port that the backend sees.
    pub reply_ports: Ports,
    /// When the last packet was seen, with a resolution of a quarter of a second.
    pub last_seen: Ticks,
    /// What the backend's answer left behind, if it has answered.
    pub proof: Proof,
    /// The source of replies.
    pub backend: IpAddr,
    /// The destination of replies: an address of ours, or with nat the client.
    pub source: IpAddr,
    /// The next hop towards the client.
    pub client_hop: ClientHop,
    /// The checksum differences of a request; those of a reply are the complements.
    pub deltas: Deltas,
    /// When the client's hop was looked up, in generations of routes.
    pub hop_stamp: HopStamp,
}

impl Flow {
    /// Copies a record. `None`: it is empty.
    pub fn of<A: Copy, S>(
        index: RecordIndex,
        record: &Record<A, S>,
        to_ip: impl Fn(A) -> IpAddr,
    ) -> Option<Self> {
        let control = Control(record.control.load());
        (control.state() != State::EMPTY).then(|| Self {
            index,
            control,
            client: to_ip(record.client.get()),
            listen: to_ip(record.listen.get()),
            request_ports: record.request_ports.get(),
            owner: record.owner.get(),
            reply_ports: record.reply_ports.get(),
            last_seen: Ticks(record.last_seen.load()),
            proof: Proof(record.proof.load()),
            backend: to_ip(record.backend.get()),
            source: to_ip(record.source.get()),
            client_hop: ClientHop(record.client_hop.load()),
            deltas: record.deltas.get(),
            hop_stamp: record.hop_stamp.get(),
        })
    }
}
