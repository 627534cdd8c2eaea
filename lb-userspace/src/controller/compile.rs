//! Compiles the state into the contents of the maps. Every decision about what the maps contain is made here.
//!
//! New flows go to the eligible backends of a service and family (ready, weight above 0, up, next hop known), as its
//! [scheduler](schedule) has them in slots. Backups are used only if no other is eligible. If no backend at all is eligible,
//! there are no slots, and new flows are dropped as `no_backend`. While a pool is [in panic](super::state), backends that
//! are down are eligible too.
//!
//! A backend keeps its id while its flows may live: backends in drain, with weight 0, and TCP backends that are down
//! keep it without getting new flows. It loses the id when its flows must end: in maint, when removed, when it goes down
//! and its service has `on_down = "reset"`, and for a UDP backend that is down, because nothing else ends a UDP flow. A
//! backend whose address or protocol changes is treated as a new backend. A change of mode or sources ends no flow: a
//! flow's record has its complete rewrite.
//!
//! Numbers in `have` are kept, so a restart changes nothing. A service keeps its number, and a backend its id, by
//! [identity](super::identity), so a rename ends no flow. A backend's counters follow its name: after a rename it
//! uses other counters, and two backends that swap names swap counters.

mod computed;
mod no_room;
mod ranges;
mod schedule;
mod vacant;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    backend::{self, BackendId},
    counters::{BackendNumber, ServiceNumber},
    hop::Interface,
    limits::{MAX_SOURCES, Room},
    net::Be16,
    pool::{Picker, Pool, PoolNumber, SlotIndex, SlotRange, SourceSetNumber},
    service::{Mode, Reject, Service as ServiceEntry},
};

pub use self::no_room::NoRoom;
use self::{
    ranges::{Half, Layout, Ranges},
    schedule::{Eligible, Entry},
    vacant::Vacant,
};
use super::{
    identity::Former,
    index::Indexed,
    snapshot::place,
    state::{Standing, State},
};
use crate::{
    datapath::{Attached, Listen, ServiceValue, Snapshot, UNRESOLVED},
    shared::Shared,
    spec::{Backend, BackendName, OnRefused, Service, rules::Family},
};

/// A pool that gives no backend to new flows. Without slots, mode and sources do not matter.
pub const WITHOUT_SLOTS: Pool = Pool::new(NO_SLOTS, Picker::Turn, Mode::Nat, SourceSetNumber::NONE);
const NO_SLOTS: SlotRange = SlotRange { offset: SlotIndex(0), length: 0 };

/// The contents that the maps should have. Things in `have` keep their numbers.
pub fn compile(state: &State, have: &Indexed) -> Result<Snapshot, NoRoom> {
    check_room(state)?;
    let half = Half::in_use(state.room(), have.ranges_in_force());
    let is_divided = have.ranges_in_force().any(|range| !half.contains(state.room(), range));
    let layouts: &[Layout] = if is_divided {
        &[Layout::Move(half), Layout::Move(half.other()), Layout::Keep(half)]
    } else {
        &[Layout::Keep(half), Layout::Move(half.other())]
    };
    let with_slots = |layout| match compile_all(state, have, layout) {
        Err(NoRoom::Slots) => None,
        outcome => Some(outcome),
    };
    layouts.iter().find_map(|layout| with_slots(*layout)).unwrap_or(Err(NoRoom::Slots))
}

fn compile_all(state: &State, have: &Indexed, layout: Layout) -> Result<Snapshot, NoRoom> {
    let services = &state.spec().services;
    let mut compiler = Compiler::new(state, have, layout);
    compiler.begin();
    for (service, former) in services.iter().zip(Former::in_maps(have).of_each(services)) {
        compiler.place(service, former)?;
    }
    compiler.empty_pools();

    let keys = state.room().service_keys();
    if compiler.want.services.len() > keys as usize {
        return Err(NoRoom::ServiceKeys(keys));
    }
    Ok(compiler.want)
}

/// What the maps should contain for these services, which are in the maps already. Each comes with its number. The result
/// covers the same entries as their [part](Indexed::part). They differ from the maps only in their backends.
pub fn compile_services(
    state: &State,
    have: &Indexed,
    services: &[(&Service, ServiceNumber)],
) -> Result<Snapshot, NoRoom> {
    check_room(state)?;
    let half = Half::in_use(state.room(), have.ranges_in_force());
    let mut compiler = Compiler::new(state, have, Layout::Keep(half));
    for (service, number) in services {
        compiler.place(service, Some(*number))?;
    }

    let Snapshot { backends, backend_names, slots, members, pools, origins, next_backend_id, .. } =
        compiler.want;
    let part = Snapshot { backends, backend_names, slots, members, pools, origins, ..Snapshot::default() };
    Ok(Snapshot { next_backend_id, ..part })
}

fn check_room(state: &State) -> Result<(), NoRoom> {
    let room = state.room();
    if state.spec().services.len() > room.services as usize {
        return Err(NoRoom::Services(room.services));
    }
    if state.backends() > room.backends as usize {
        return Err(NoRoom::Backends(room.backends));
    }
    if state.slots() > room.slots.into() {
        return Err(too_many_slots(state));
    }
    Ok(())
}

fn too_many_slots(state: &State) -> NoRoom {
    let (room, mut sum) = (state.room().slots, 0);
    let exceeds = |service: &&Shared<Service>| {
        sum += service.most_slots();
        sum > room.into()
    };
    let service = state.spec().services.iter().find(exceeds);
    NoRoom::Schedules {
        service: service.map_or_else(String::new, |it| it.name.clone()),
        needed: state.slots(),
        room,
    }
}

struct Compiler<'a> {
    state: &'a State,
    have: &'a Indexed,
    vacant: Vacant,
    room: Room,
    layout: Layout,
    /// Places of the `BACKENDS` array that are used. Filled on first use, which is rare.
    places: BTreeSet<u32>,
    /// Filled on first use, which is rare.
    ranges: Option<Ranges>,
    /// Source sets by their contents.
    sets: BTreeMap<Vec<IpAddr>, SourceSetNumber>,
    want: Snapshot,
}

impl<'a> Compiler<'a> {
    fn new(state: &'a State, have: &'a Indexed, layout: Layout) -> Self {
        Self {
            state,
            have,
            vacant: Vacant::default(),
            ranges: None,
            room: state.room(),
            layout,
            places: BTreeSet::new(),
            sets: BTreeMap::new(),
            want: Snapshot {
                next_backend_id: have.next_backend_id.max(BackendId::FIRST),
                ..Snapshot::default()
            },
        }
    }

    /// What belongs to no service, and what packets may be reading.
    fn begin(&mut self) {
        self.want.hop_generation = self.state.hop_generation();
        self.want.hash_key = self.state.spec().hash.key;
        self.want.quiet = self.state.quiet();
        self.want.interfaces = self.state.attached().iter().map(|it| (it.index, interface(it))).collect();
        let grace = self.state.grace();
        (self.want.slots, self.want.sources) = (self.have.slots_read(grace), self.have.sources_read(grace));
        let sets = self.have.sources.iter().rev();
        self.sets = sets.map(|(number, sources)| (sources.clone(), *number)).collect();
    }

    /// A packet that looked up its service just before the service was removed still finds the pool, which then has no
    /// backends.
    fn empty_pools(&mut self) {
        let (in_use, grace) = (self.have.pools_in_use(), self.state.grace());
        for number in self.have.pools.keys() {
            if in_use.contains(number) || grace.has_pool(*number) {
                self.want.pools.entry(*number).or_insert(WITHOUT_SLOTS);
            }
        }
    }

    fn place(&mut self, service: &Service, former: Option<ServiceNumber>) -> Result<(), NoRoom> {
        let number = self.service_number(service, former)?;
        // With a different protocol, each is a new backend.
        let is_same = !self.have.has_other_protocol(number, service.protocol);
        let places = if is_same { self.have.backends_by_address(number) } else { BTreeMap::new() };
        let mut pools: BTreeMap<Family, PoolNumber> = BTreeMap::new();
        for family in Family::ALL {
            if service.listen.iter().any(|it| Family::of(it.ip()) == family) {
                pools.insert(family, self.pool(number, family)?);
            }
        }
        let families_in_panic = self.state.families_in_panic(service);
        let mut eligible: BTreeMap<Family, Eligible> = BTreeMap::new();
        let mut computed: BTreeMap<Family, Eligible> = BTreeMap::new();
        let mut placed: BTreeMap<Family, Vec<BackendId>> = BTreeMap::new();
        let mut in_panic = Vec::new();
        for (backend, standing) in service.backends.iter().zip(self.state.standings(service)) {
            let name = BackendName::new(&service.name, &backend.name);
            let counters = self.backend_number(&name)?;
            let family = Family::of(backend.address.ip());
            if standing == Standing::Absent {
                computed.entry(family).or_default().add_if_computed(service, backend, BackendId::NONE);
                continue;
            }
            let id = match places.get(&backend.address) {
                Some(entry) => entry.id,
                None => self.fresh_id()?,
            };
            computed.entry(family).or_default().add_if_computed(service, backend, id);
            let pool = pools.get(&family).copied().unwrap_or_default();
            self.place_backend(service, backend, (number, counters), (id, pool));
            placed.entry(family).or_default().push(id);
            in_panic.extend((standing == Standing::EligibleInPanic).then_some(id));
            if matches!(standing, Standing::Eligible | Standing::EligibleInPanic) {
                let part = self.state.part(service, backend, &name, &families_in_panic);
                let entry = Entry::new(id, backend, service.scheduler, part);
                let is_backup = self.state.is_backup(service, backend);
                eligible.entry(family).or_default().add(entry, is_backup);
            }
        }
        for (family, pool) in pools {
            let eligible = eligible.remove(&family).unwrap_or_default();
            let computed = computed.remove(&family).unwrap_or_default();
            let computed = self.computed_pool(service, number, family, computed.in_force())?;
            self.schedule(service, (number, computed), (family, pool), eligible)?;
        }
        if service.availability.on_refused == OnRefused::Retry {
            placed.values().for_each(|ids| self.mark_retries(ids));
        }
        self.mark_in_panic(&in_panic);
        self.mark_origins(service, &placed);
        self.mark_addresses(service, number);
        Ok(())
    }

    /// Marks the backends of a pool whose refusals are hidden: those beside which another one gets new flows. One that has left
    /// the schedule may still refuse flows that it got before.
    fn mark_retries(&mut self, ids: &[BackendId]) {
        let accepts = |entry: &backend::Backend| usize::from(entry.accepts != backend::Backend::ACCEPTS_NONE);
        let accepting: usize =
            ids.iter().filter_map(|id| self.want.backends.get(&place(*id))).map(accepts).sum();
        for id in ids {
            let entry = self.want.backends.entry(place(*id));
            entry.and_modify(|entry| entry.retries = (accepting > accepts(entry)).into());
        }
    }

    /// Marks backends that get flows although they are down.
    fn mark_in_panic(&mut self, ids: &[BackendId]) {
        for id in ids {
            if let Some(entry) = self.want.backends.get_mut(&place(*id))
                && entry.accepts == backend::Backend::ACCEPTS
            {
                entry.accepts = backend::Backend::ACCEPTS_IN_PANIC;
            }
        }
    }

    fn place_backend(
        &mut self,
        service: &Service,
        backend: &Backend,
        (service_counters, counters): (ServiceNumber, BackendNumber),
        (id, pool): (BackendId, PoolNumber),
    ) {
        let entry = backend::Backend {
            id,
            counters,
            service_counters,
            accepts: backend::Backend::ACCEPTS_NONE, // until a slot names it
            address: backend.address.ip().into(),
            port: Be16::new(backend.address.port()),
            retries: 0,
            most_ejected: 0,
            zero: 0,
            hop: self.state.hop(self.state.path(service, backend)).unwrap_or(UNRESOLVED),
            pool,
            weight: 0,
            max_flows: backend.max_flows,
            load: [0; 7],
        };
        self.want.backends.insert(place(id), entry);
    }

    /// Activates the schedule of a family.
    fn schedule(
        &mut self,
        service: &Service,
        (counters, computed): (ServiceNumber, Option<PoolNumber>),
        (family, pool): (Family, PoolNumber),
        eligible: Eligible,
    ) -> Result<(), NoRoom> {
        let listens = service.listen.iter().filter(|it| Family::of(it.ip()) == family);
        let entries = eligible.in_force();
        for entry in &entries {
            self.want.backends.entry(place(entry.id)).and_modify(|backend| {
                backend.accepts = backend::Backend::ACCEPTS;
                backend.most_ejected = (entries.len() / 2) as u16;
                backend.weight = entry.weight;
            });
        }
        let sources = sources(service, family);
        if sources.len() > MAX_SOURCES {
            return Err(NoRoom::PoolSources { service: service.name.clone() });
        }

        let ids = schedule::slots(service.scheduler, &entries, &self.state.spec().hash.key);
        let (slots, set) = (self.slots(pool, ids)?, self.source_set(pool, sources)?);
        let picker = schedule::picker(service.scheduler);
        self.want.pools.insert(pool, Pool::new(slots, picker, service.mode, set));
        if !entries.is_empty() {
            self.want.members.insert(pool, schedule::members(&entries));
        }
        for listen in listens {
            let key =
                Listen { address: listen.ip(), port: Be16::new(listen.port()), protocol: service.protocol };
            self.want.services.insert(key, ServiceValue { pool, counters, reject: service.reject, computed });
        }
        Ok(())
    }

    /// Addresses of the load balancer, with any port. Packets to other ports are counted for the first service in
    /// the file.
    fn mark_addresses(&mut self, service: &Service, counters: ServiceNumber) {
        let sources = Family::ALL.into_iter().flat_map(|family| sources(service, family));
        for address in service.listen.iter().map(|listen| listen.ip()).chain(sources) {
            let marker = Listen { address, port: Be16::new(0), protocol: service.protocol };
            // The same for all services of the address, because nothing is read from it but the counters.
            let (pool, reject) = (ServiceEntry::NO_POOL, Reject::Drop);
            let value = ServiceValue { pool, counters, reject, computed: None };
            self.want.services.entry(marker).or_insert(value);
        }
    }

    fn service_number(
        &mut self,
        service: &Service,
        former: Option<ServiceNumber>,
    ) -> Result<ServiceNumber, NoRoom> {
        let number = match former {
            Some(number) => number,
            None => {
                let taken = [&self.have.service_names, &self.want.service_names];
                self.vacant
                    .services
                    .take(self.room.service_numbers(), taken)
                    .ok_or(NoRoom::Services(self.room.services))?
            }
        };
        self.want.service_names.insert(number, service.name.clone());
        Ok(number)
    }

    fn backend_number(&mut self, name: &BackendName) -> Result<BackendNumber, NoRoom> {
        let number = match self.have.backend_number(name) {
            Some(number) => number,
            None => {
                let taken = [&self.have.backend_names, &self.want.backend_names];
                self.vacant.backends.take(self.room.places(), taken).ok_or(self.no_place())?
            }
        };
        self.want.backend_names.insert(number, name.clone());
        Ok(number)
    }

    /// The pool that the service has already; otherwise one that is unused in both snapshots.
    fn pool(&mut self, service: ServiceNumber, family: Family) -> Result<PoolNumber, NoRoom> {
        match self.have.pool(service, family) {
            Some(pool) => Ok(pool),
            None => self.fresh_pool(),
        }
    }

    fn fresh_pool(&mut self) -> Result<PoolNumber, NoRoom> {
        loop {
            let taken = [&self.have.pools, &self.want.pools];
            let number = self.vacant.pools.take(self.room.pools(), taken);
            let number = number.ok_or(NoRoom::Pools(self.room.pools()))?;
            if !self.have.refers_to_pool(number) {
                return Ok(number);
            }
        }
    }

    /// The active slots if they hold exactly these ids; otherwise slots that no packet can be reading.
    fn slots(&mut self, pool: PoolNumber, ids: Vec<BackendId>) -> Result<SlotRange, NoRoom> {
        if ids.is_empty() {
            return Ok(SlotRange::default());
        }
        let in_force = self.have.pools.get(&pool).filter(|it| self.layout.keeps(self.room, it.slots()));
        if let Some(in_force) = in_force.filter(|it| self.have.ids(**it) == ids) {
            return Ok(in_force.slots());
        }
        let (have, room, layout) = (&self.have.slots, self.room, self.layout);
        let ranges = self.ranges.get_or_insert_with(|| {
            let taken = have.iter().map(|(at, ids)| SlotRange { offset: *at, length: ids.len() as u32 });
            Ranges::new(room, layout.half(), taken)
        });
        let slots = ranges.take(ids.len() as u32).ok_or(NoRoom::Slots)?;
        self.want.slots.insert(slots.offset, ids.into());
        Ok(slots)
    }

    /// The active set if it holds exactly these sources; otherwise any set with these sources, even one of a different
    /// service; otherwise a free one that no packet can be reading.
    fn source_set(&mut self, pool: PoolNumber, sources: Vec<IpAddr>) -> Result<SourceSetNumber, NoRoom> {
        if sources.is_empty() {
            return Ok(SourceSetNumber::NONE);
        }
        let in_force = self.have.pools.get(&pool).map(|pool| pool.sources());
        if let Some(set) = in_force.filter(|set| self.have.sources.get(set) == Some(&sources)) {
            return Ok(set);
        }
        let number = match self.sets.get(&sources) {
            Some(number) => *number,
            None => {
                let taken = [&self.have.sources, &self.want.sources];
                self.vacant.sources.take(self.room.source_sets(), taken).ok_or(NoRoom::SourceSets)?
            }
        };
        self.sets.insert(sources.clone(), number);
        self.want.sources.insert(number, sources);
        Ok(number)
    }

    /// The next id whose place is free in both snapshots.
    fn fresh_id(&mut self) -> Result<BackendId, NoRoom> {
        let places = self.room.places();
        if self.places.is_empty() {
            self.places = self.have.backends.values().map(|backend| backend.id.place(places)).collect();
        }
        // Two rounds over the places: the wrap skips place 0, because no backend has the id 0.
        for _ in 0..2 * places {
            let id = self.want.next_backend_id;
            self.want.next_backend_id = id.following();
            if self.places.insert(id.place(places)) {
                return Ok(id);
            }
        }
        Err(self.no_place())
    }

    const fn no_place(&self) -> NoRoom {
        NoRoom::Backends(self.room.backends)
    }
}

fn sources(service: &Service, family: Family) -> Vec<IpAddr> {
    match service.mode {
        Mode::FullNat => service.sources.iter().copied().filter(|it| Family::of(*it) == family).collect(),
        Mode::Nat => Vec::new(),
    }
}

fn interface(attached: &Attached) -> Interface {
    Interface { mac: attached.mac, zero: 0, mtu: attached.mtu, attached: 1 }
}

#[cfg(test)]
mod tests;
