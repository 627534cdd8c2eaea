//! The core's storage in plain memory, in place of the kernel's maps.

mod flows;

use std::cell::{Cell, OnceCell, RefCell};

use lb_common::{
    backend::{Backend, BackendId, Load},
    cell::Word,
    clock::Ticks,
    counters::{BackendNumber, ServiceNumber, Tally},
    event::NeighbourWanted,
    flow::{Bucket, BucketIndex, FlowId, LineIndex, RecordIndex, ReplyLine},
    hop::{Hop, Interface, InterfaceIndex},
    limits::MAX_PLACES,
    net::{Address, V4, V6},
    pool::{Members, Pool, PoolNumber, SlotIndex, SlotLine, SourceSet, SourceSetNumber, Turn},
    quiet::FirstSeen,
    reason::Reason,
    service::{Service, ServiceKey},
    settings::Settings,
};
use lb_ebpf::{
    family::{Family, RecordOf},
    steps::Steps,
    storage::{self, FlowTable, Route, Storage},
    table::half_open::HalfOpen,
    table::scratch::Scratch,
};

pub use self::flows::Flows;
use crate::{
    engine::{Counters, MAX_IDS, MAX_NUMBERS, Memory},
    world::{Element, Maps, World, network},
};

/// All maps.
pub struct MemoryTables {
    epoch: Epoch,
    turns: Vec<Turn>,
    /// By id, modulo [`MAX_IDS`].
    loads: Vec<Load>,
    v4: Flows<V4>,
    v6: Flows<V6>,
    answers: Word,
    first_seen: Vec<Word>,
    counters: RefCell<Counters>,
    asked: RefCell<Vec<NeighbourWanted>>,
    reported: RefCell<Vec<FlowId>>,
    cpu: Cell<usize>,
}

/// One version of the world. References into it stay valid when a later one replaces it.
struct Epoch {
    number: u32,
    world: World,
    maps: Maps,
    next: OnceCell<Box<Self>>,
}

impl Epoch {
    fn new(world: &World, number: u32) -> Self {
        Self { number, world: world.clone(), maps: world.maps(number), next: OnceCell::new() }
    }

    /// This version and the later ones.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |epoch| epoch.next.get().map(|next| &**next))
    }

    fn last(&self) -> &Self {
        self.all().last().unwrap_or(self)
    }
}

impl MemoryTables {
    /// Empty tables in a world.
    pub fn new(world: &World) -> Self {
        let epoch = Epoch::new(world, 0);
        let counters = Counters {
            reasons: vec![Tally::default(); Reason::ALL.len()],
            actions: vec![Default::default(); network::INTERFACES.len()],
            backends: vec![Default::default(); MAX_NUMBERS as usize],
            services: vec![Default::default(); MAX_NUMBERS as usize],
        };
        Self {
            turns: (0..MAX_NUMBERS).map(|_| turn()).collect(),
            loads: (0..MAX_IDS).map(|_| load()).collect(),
            v4: Flows::new(epoch.maps.settings.shape4),
            v6: Flows::new(epoch.maps.settings.shape6),
            answers: Word::new(0),
            first_seen: (0..FirstSeen::ELEMENTS).map(|_| Word::new(0)).collect(),
            counters: RefCell::new(counters),
            asked: RefCell::default(),
            reported: RefCell::default(),
            cpu: Cell::new(0),
            epoch,
        }
    }

    /// Replaces the controller's maps; flows, turns and counters stay.
    pub fn load(&mut self, world: &World) {
        self.epoch = Epoch::new(world, 0);
    }

    /// The same while a CPU is between two accesses.
    pub fn load_meanwhile(&self, world: &World) {
        let last = self.epoch.last();
        let is_last = last.next.set(Box::new(Epoch::new(world, last.number + 1))).is_ok();
        assert!(is_last, "the last epoch has no next one");
    }

    /// Another CPU acts.
    pub fn on_another_cpu(&self, happen: impl FnOnce()) {
        self.cpu.set(self.cpu.get() + 1);
        happen();
        self.cpu.set(self.cpu.get() - 1);
    }

    fn world(&self) -> &World {
        &self.epoch.last().world
    }

    fn maps(&self) -> &Maps {
        &self.epoch.last().maps
    }

    /// The element, unless the world has it missing.
    fn unless_missing<T>(&self, element: Element, it: Option<T>) -> Option<T> {
        it.filter(|_| self.world().missing != Some(element))
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// Counts.
    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.borrow_mut());
    }

    /// The neighbour requests since the last call.
    pub fn take_asked(&self) -> Vec<NeighbourWanted> {
        self.asked.take()
    }

    /// The flows that were reported since the last call.
    pub fn take_reported(&self) -> Vec<FlowId> {
        self.reported.take()
    }

    /// The flow tables.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            half_open: [self.v4.half_open(), self.v6.half_open()],
            turns: self.turns.iter().map(|turn| (turn.taken.load(), turn.ejected.load())).collect(),
            loads: self.loads.iter().map(|load| (load.flows.load(), load.ejection.load())).collect(),
            ..Memory::default()
        };
        self.v4.copy_into(&mut memory, 0);
        self.v6.copy_into(&mut memory, 1);
        memory
    }
}

fn turn() -> Turn {
    Turn { taken: Word::new(0), ejected: Word::new(0), zero: [0; 6] }
}

fn load() -> Load {
    Load { flows: Word::new(0), ejection: Word::new(0), answered: Word::new(0), zero: [0; 4] }
}

fn add(tally: &mut Tally, bytes: u64) {
    tally.packets += 1;
    tally.bytes += bytes;
}

impl storage::Maps for MemoryTables {
    fn settings(&self) -> &Settings {
        &self.maps().settings
    }

    fn now(&self) -> Ticks {
        self.maps().settings.clock
    }

    fn filter(&self, place: usize) -> u8 {
        self.maps().filter[place]
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.maps().services.iter().find(|(it, _)| it == key).map(|(_, service)| *service)
    }

    fn origin(&self, key: &ServiceKey) -> Option<ServiceKey> {
        self.maps().origins.iter().find(|(it, _)| it == key).map(|(_, listen)| *listen)
    }

    fn pool(&self, number: PoolNumber) -> Option<Pool> {
        self.unless_missing(Element::Pool, self.maps().pools.get(number.0 as usize).copied())
    }

    fn slot(&self, index: SlotIndex) -> Option<BackendId> {
        let mut lines = self.epoch.all().flat_map(|epoch| &epoch.maps.slots);
        let line = lines.find(|(number, _)| *number == SlotLine::line(index));
        self.unless_missing(Element::Slots, line.map(|(_, ids)| BackendId(ids[SlotLine::place(index)])))
    }

    fn members(&self, pool: PoolNumber) -> Option<&Members> {
        self.unless_missing(Element::Members, self.maps().members.get(pool.0 as usize))
    }

    fn sources(&self, number: SourceSetNumber) -> Option<&SourceSet> {
        let mut sets = self.epoch.all().flat_map(|epoch| &epoch.maps.sources);
        let set = sets.find(|(it, _)| *it == number).map(|(_, set)| set);
        self.unless_missing(Element::Sources, set)
    }

    fn turn(&self, pool: PoolNumber) -> Option<&Turn> {
        self.unless_missing(Element::Turn, self.turns.get(pool.0 as usize))
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        // Unused entries of an array are zeros.
        static NO_BACKEND: Backend = Backend {
            id: BackendId::NONE,
            counters: BackendNumber(0),
            service_counters: ServiceNumber(0),
            accepts: 0,
            address: Address::v6(V6(0, 0)),
            port: lb_common::net::Be16::new(0),
            retries: 0,
            most_ejected: 0,
            zero: 0,
            hop: Hop { destination: ZERO_MAC, source: ZERO_MAC, interface: InterfaceIndex::NONE, mtu: 0 },
            pool: PoolNumber(0),
            weight: 0,
            max_flows: 0,
            load: [0; 7],
        };
        let place = id.place(MAX_PLACES);
        let there = self
            .maps()
            .backends
            .iter()
            .find(|it| it.id != BackendId::NONE && it.id.place(MAX_PLACES) == place);
        self.unless_missing(Element::Backend, Some(there.unwrap_or(&NO_BACKEND)))
    }

    fn load_of<'a>(&'a self, backend: &'a Backend) -> &'a Load {
        &self.loads[backend.id.place(MAX_IDS) as usize]
    }

    fn interface(&self, index: InterfaceIndex) -> Option<&Interface> {
        let mut interfaces = self.maps().interfaces.iter();
        let found = interfaces.find(|(it, _)| *it == index.0).map(|(_, interface)| interface);
        self.unless_missing(Element::Interface, found)
    }

    fn request_neighbour(&self, wanted: NeighbourWanted) -> bool {
        let is_heard = self.world().daemon_listens;
        if is_heard {
            self.asked.borrow_mut().push(wanted);
        }
        is_heard
    }

    fn answers(&self) -> Option<&Word> {
        self.unless_missing(Element::Answers, Some(&self.answers))
    }

    fn first_seen(&self, place: u32) -> Option<&Word> {
        self.unless_missing(Element::FirstSeen, self.first_seen.get(place as usize))
    }

    fn count_forwarded(&self, number: BackendNumber, bytes: u64) {
        self.count(|counters| add(&mut counters.backends[number.0 as usize].forwarded, bytes));
    }

    fn count_returned(&self, number: BackendNumber, bytes: u64) {
        self.count(|counters| add(&mut counters.backends[number.0 as usize].returned, bytes));
    }

    fn count_new_flow(&self, number: BackendNumber) {
        self.count(|counters| counters.backends[number.0 as usize].new_flows += 1);
    }

    fn count_refusal(&self, number: BackendNumber) {
        self.count(|counters| counters.backends[number.0 as usize].refused += 1);
    }

    fn count_unanswered(&self, number: BackendNumber) {
        self.count(|counters| counters.backends[number.0 as usize].unanswered += 1);
    }

    fn count_retried_flow(&self, number: ServiceNumber) {
        self.count(|counters| counters.services[number.0 as usize].retried_flows += 1);
    }

    fn count_refused(&self, number: ServiceNumber, bytes: u64) {
        self.count(|counters| add(&mut counters.services[number.0 as usize].refused, bytes));
    }
}

const ZERO_MAC: lb_common::net::Mac = lb_common::net::Mac([0; 3]);

macro_rules! flow_tables {
    ($family:ty, $flows:ident) => {
        impl FlowTable<$family> for MemoryTables {
            fn bucket(&self, index: BucketIndex) -> Option<&Bucket<RecordOf<$family>>> {
                self.unless_missing(Element::Bucket, self.$flows.buckets.get(index.0 as usize))
            }

            fn line(&self, index: LineIndex) -> Option<&ReplyLine> {
                self.unless_missing(Element::Line, self.$flows.lines.get(index.0 as usize))
            }

            fn half_open(&self) -> Option<HalfOpen<'_>> {
                let batch = <$family>::shape(&self.maps().settings).half_open_batch;
                let own = self.$flows.half_open_cpu.get(self.cpu.get())?;
                let half_open = HalfOpen { shared: &self.$flows.half_open, own: Some((own, batch)) };
                self.unless_missing(Element::HalfOpen, Some(half_open))
            }

            fn load(&self, id: BackendId) -> Option<&Load> {
                let backend = storage::Maps::backend(self, id)?;
                (backend.id == id).then(|| storage::Maps::load_of(self, backend))
            }

            fn report(&self, record: RecordIndex, generation: u32) {
                self.reported.borrow_mut().push(FlowId::new(<$family>::IS_V6, record, generation));
            }
        }

        impl Storage<$family> for MemoryTables {
            fn scratch(&self) -> Option<&Scratch<$family>> {
                self.unless_missing(Element::Scratch, self.$flows.scratch.get(self.cpu.get()))
            }

            fn route(&self, _source: $family, destination: $family) -> Result<Route, Reason> {
                self.world().route(<$family>::to_key(destination).to_ip())
            }
        }

        impl Steps<$family> for MemoryTables {}
    };
}

flow_tables!(V4, v4);
flow_tables!(V6, v6);
