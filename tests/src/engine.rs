//! What runs rows: the packet core in memory, or the loaded program in the kernel. Both must do the same.

use lb_common::{
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    flow::{Control, Deltas, Owner, Proof, Record, State},
    hop::{ClientHop, HopStamp},
    net::Ports,
};
use std::net::IpAddr;

use crate::world::World;

/// The largest shape that a world may ask for: engines make their tables once.
pub const MAX_BUCKETS: u32 = 64;
/// No world has more services (and so pools and tables), or more backends.
pub const MAX_NUMBERS: u32 = 8;

/// Runs packets in a world.
pub trait Engine {
    /// Begins anew: no flows, nothing counted.
    fn reset(&mut self, world: &World) -> anyhow::Result<()>;
    /// The controller has changed something: flows and counters stay.
    fn load(&mut self, world: &World) -> anyhow::Result<()>;
    /// Runs the program on a frame that came by an interface.
    fn run(&mut self, interface: u32, frame: &[u8]) -> anyhow::Result<Outcome>;
    /// The same on a CPU that stands still before some of its accesses of shared memory, while something happens on
    /// another. Returns how many of these were not reached, and did not happen.
    fn stand_still(
        &mut self,
        _interface: u32,
        _frame: &[u8],
        _pauses: Vec<Pause>,
    ) -> anyhow::Result<(Outcome, usize)> {
        anyhow::bail!("this engine's CPUs do not stand still on demand")
    }
    /// What was counted since the reset.
    fn counters(&mut self) -> anyhow::Result<Counters>;
    /// What the program remembers.
    fn memory(&mut self) -> anyhow::Result<Memory>;
}

/// How many accesses come first, counted from the pause before, and what happens on another CPU then.
pub type Pause = (usize, Box<dyn FnOnce(&mut dyn Engine)>);

/// What the kernel is told to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    Transmit,
    Redirect,
}

/// A frame after the program, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub action: Action,
    pub frame: Vec<u8>,
}

/// Everything that is counted, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub reasons: Vec<Tally>,
    /// By place in `world::network::INTERFACES`.
    pub actions: Vec<ActionCounters>,
    pub backends: Vec<BackendCounters>,
    pub services: Vec<ServiceCounters>,
}

/// Everything that is remembered, record by record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub flows: Vec<Flow>,
    /// Family's place, line, slot, hint.
    pub hints: Vec<(usize, u32, usize, u64)>,
    /// By family.
    pub half_open: [u64; 2],
    /// By pool.
    pub turns: Vec<u64>,
}

/// A record that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub number: u32,
    pub control: Control,
    pub client: IpAddr,
    pub listen: IpAddr,
    pub request_ports: Ports,
    pub owner: Owner,
    pub reply_ports: Ports,
    pub last_seen: u32,
    pub proof: Proof,
    pub backend: IpAddr,
    pub source: IpAddr,
    pub client_hop: ClientHop,
    pub deltas: Deltas,
    pub hop_stamp: HopStamp,
}

impl Flow {
    /// Copies a record out. `None`: it is nobody's.
    pub fn of<A: Copy, S>(number: u32, record: &Record<A, S>, to_ip: impl Fn(A) -> IpAddr) -> Option<Self> {
        let control = Control(record.control.load());
        (control.state() != State::EMPTY).then(|| Self {
            number,
            control,
            client: to_ip(record.client.get()),
            listen: to_ip(record.listen.get()),
            request_ports: record.request_ports.get(),
            owner: record.owner.get(),
            reply_ports: record.reply_ports.get(),
            last_seen: record.last_seen.load(),
            proof: Proof(record.proof.load()),
            backend: to_ip(record.backend.get()),
            source: to_ip(record.source.get()),
            client_hop: ClientHop(record.client_hop.load()),
            deltas: record.deltas.get(),
            hop_stamp: record.hop_stamp.get(),
        })
    }
}
