//! The balancer's program with its maps written by hand: one service, many backends, one NIC.

use std::time::Duration;

use anyhow::{Result, ensure};
use aya::maps::{PerCpuArray, RingBuf, xdp::DevMap};
use lb_common::{
    answers::Answers,
    backend::{Backend, BackendId},
    clock::Ticks,
    counters::{ActionCounters, BackendNumber, ServiceNumber, Tally},
    flow::{Bucket, ReplyLine, Shape},
    hop::{Hop, Interface, InterfaceIndex},
    net::{Be16, Mac, Protocol},
    pool::{Picker, Pool, PoolNumber, SlotIndex, SlotLine, SlotRange, SourceSet, SourceSetNumber},
    reason::Reason,
    service::{Filter, Mode, Reject, Service, ServiceKey},
    settings::{PortPool, Settings},
};
use lb_ebpf::family::RecordOf;
use nix::time::{ClockId, clock_gettime};

use super::{
    frame::{Block, Numbered, SERVICE_PORT},
    object::{Mapped, Object, UNUSED},
};
use crate::world::HASH_KEYS;

/// Enough that a million flows use a small part of the source ports.
pub const BACKENDS: u32 = 64;
/// Where backends listen.
pub const BACKEND_PORT: u16 = 8080;
/// Our own Ethernet address: where frames go to.
pub const US: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
/// The Ethernet address of all other stations.
pub const THEM: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

/// How to reach all clients: lines of `ip`.
pub const ROUTES: &str = "\
neigh add 192.0.2.200 lladdr 02:00:00:00:00:02 nud permanent dev eth0
neigh add 2001:db8::200 lladdr 02:00:00:00:00:02 nud permanent dev eth0
route add 100.64.0.0/10 via 192.0.2.200
route add 2001:db8:64::/48 via 2001:db8::200
";

/// Where packets come in and leave.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// The interface towards clients.
    pub front: u32,
    /// The interface towards backends.
    pub back: u32,
}

/// The loaded program, for one family.
pub struct Balancer<F: Numbered> {
    /// The program's maps, beside those that are mapped below.
    pub object: Object,
    /// The flow table, mapped: what the program writes is seen here at once.
    pub records: Mapped<Bucket<RecordOf<F>>>,
    reply_index: Mapped<ReplyLine>,
    half_open: Mapped<u64>,
    ingress: u32,
    /// The first slot that belongs to no schedule.
    free: SlotIndex,
}

impl<F: Numbered> Balancer<F> {
    /// A balancer for this many flows.
    pub fn new(flows: u32, links: Links) -> Result<Self> {
        Self::with(flows, links, |shape4, shape6| Object::load_sized("lb", shape4, shape6, 0))
    }

    /// One that reports flows, as in a group.
    pub fn new_in_group(flows: u32, links: Links) -> Result<Self> {
        Self::with(flows, links, |shape4, shape6| Object::load_in_group("lb", shape4, shape6))
    }

    fn with(flows: u32, links: Links, load: impl FnOnce(Shape, Shape) -> Result<Object>) -> Result<Self> {
        let shape = Shape::for_flows(flows, flows);
        let (shape4, shape6) = if F::DIGIT == 4 { (shape, UNUSED) } else { (UNUSED, shape) };
        let mut object = load(shape4, shape6)?;
        furnish::<F>(&mut object, shape4, shape6, links)?;
        Ok(Self {
            records: object.mapped(&format!("FLOWS{}", F::DIGIT))?,
            reply_index: object.mapped(&format!("REPLY_INDEX{}", F::DIGIT))?,
            half_open: object.mapped(&format!("HALF_OPEN{}", F::DIGIT))?,
            object,
            ingress: links.front,
            free: SlotIndex(BACKENDS),
        })
    }

    /// Reads the flows that were reported, and returns how many there were.
    pub fn read_reports(&mut self) -> Result<usize> {
        let mut ring = RingBuf::try_from(self.object.map_mut("FLOW_EVENTS")?)?;
        let mut count = 0;
        while ring.next().is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Removes all flows.
    pub fn clear(&mut self) {
        self.records.clear();
        self.reply_index.clear();
        self.half_open.clear();
    }

    /// Sets what happens to packets without a flow. The limit of answers is reached for the next half hour, because a packet
    /// that became its own answer could not be sent again.
    pub fn reject(&mut self, reject: Reject) -> Result<()> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let start = Ticks::from_ns((now + Duration::from_secs(1800)).as_nanos() as u64);
        self.object.set("ANSWERS", 0, Answers::exhausted(start).0)?;
        listen::<F>(&mut self.object, reject)
    }

    /// The limit of answers is not reached.
    pub fn allow_answers(&mut self) -> Result<()> {
        self.object.set("ANSWERS", 0, Answers::default().0)
    }

    /// Writes another schedule, which is used once it is [chosen](Self::choose).
    pub fn lay_out(&mut self, ids: &[u32]) -> Result<SlotRange> {
        let slots = SlotRange { offset: self.free, length: u32::try_from(ids.len())? };
        for (line, chunk) in (SlotLine::line(slots.offset)..).zip(ids.chunks(SlotLine::SLOTS)) {
            let ids: [u32; SlotLine::SLOTS] =
                std::array::from_fn(|place| chunk.get(place).copied().unwrap_or_default());
            self.object.set("SLOTS", line, ids)?;
        }
        self.free.0 += SlotLine::occupied(slots.length);
        Ok(slots)
    }

    /// New flows choose among these slots.
    pub fn choose(&mut self, picker: Picker, slots: SlotRange) -> Result<()> {
        self.object.set("POOLS", 0, Pool::new(slots, picker, Mode::FullNat, SourceSetNumber(1)))
    }

    /// How many packets were not forwarded because of `reason`.
    pub fn refused(&self, reason: Reason) -> Result<u64> {
        let reasons: PerCpuArray<_, Tally> = self.object.map("REASONS")?.try_into()?;
        Ok(reasons.get(&(reason as u32), 0)?.iter().map(|tally| tally.packets).sum())
    }

    /// How many packets left by the interface that they came in by, and by another.
    pub fn forwarded(&self) -> Result<u64> {
        let actions: PerCpuArray<_, ActionCounters> = self.object.map("ACTIONS")?.try_into()?;
        let counters = actions.get(&self.ingress, 0)?;
        Ok(counters.iter().map(|counters| counters.transmitted + counters.redirected).sum())
    }
}

fn furnish<F: Numbered>(object: &mut Object, shape4: Shape, shape6: Shape, links: Links) -> Result<()> {
    let settings = Settings {
        hash_keys: HASH_KEYS,
        keys: [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
            0x4528_21e6_38d0_1377,
            0xbe54_66cf_34e9_0c6c,
        ],
        shape4,
        shape6,
        ports: PortPool::around(32_768, 60_999),
        own_ports: PortPool::around(32_768, 60_999),
        next_backend_id: BackendId(BACKENDS + 1),
        ..Settings::default()
    };
    object.set(Settings::SECTION, 0, settings)?;
    for interface in [links.front, links.back] {
        let it = Interface { mac: US, zero: 0, mtu: 1500, attached: 1 };
        object.set("INTERFACES", interface, it)?;
        DevMap::try_from(object.map_mut("DEVICES")?)?.set(interface, interface, None, 0)?;
    }

    let key = |block, number| F::to_key(F::address(block, number));
    let mut filter = Filter { byte: [0; _] };
    let mut mark = |block, number, port, what| {
        filter.byte[Filter::place(F::fold(F::address(block, number)), Be16::new(port))] |= what;
    };
    mark(Block::Service, 0, SERVICE_PORT, Filter::SERVICE);
    for number in 0..BACKENDS {
        let hop = Hop { destination: THEM, source: US, interface: InterfaceIndex(links.back), mtu: 1500 };
        let id = number + 1;
        let (address, port) = (key(Block::Backend, number), Be16::new(BACKEND_PORT));
        object.set(
            "BACKENDS",
            id,
            Backend {
                id: BackendId(id),
                counters: BackendNumber(id),
                accepts: 1,
                address,
                port,
                retries: 1,
                hop,
                weight: 100,
                ..Backend::default()
            },
        )?;
        mark(Block::Backend, number, BACKEND_PORT, Filter::BACKEND);
    }
    ensure!(
        filter.byte[Filter::place(F::fold(F::address(Block::Stranger, 0)), Be16::new(SERVICE_PORT))] == 0,
        "the unused address is a false positive of the prefilter: choose another address"
    );
    object.set(Filter::SECTION, 0, filter)?;

    let sources = SourceSet { address: std::array::from_fn(|n| key(Block::Source, n as u32)) };
    let slots = SlotRange { offset: SlotIndex(0), length: BACKENDS };
    for line in 0..SlotLine::line(slots.end()) {
        let first = 1 + line * SlotLine::SLOTS as u32;
        let ids: [u32; SlotLine::SLOTS] = std::array::from_fn(|place| first + place as u32);
        object.set("SLOTS", line, ids)?;
    }
    object.set("SOURCES", 1, sources)?;
    object.set("POOLS", 0, Pool::new(slots, Picker::Turn, Mode::FullNat, SourceSetNumber(1)))?;
    listen::<F>(object, Reject::Drop)
}

fn listen<F: Numbered>(object: &mut Object, reject: Reject) -> Result<()> {
    let address = F::to_key(F::address(Block::Service, 0));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let key = ServiceKey::new(address, Be16::new(SERVICE_PORT), protocol.number());
        let value =
            Service { pool: PoolNumber(0), counters: ServiceNumber(0), reject: reject as u32, computed: 0 };
        object.listen(key, value)?;
    }
    Ok(())
}
