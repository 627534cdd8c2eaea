//! A snapshot with indexes: by name, by service, and of the entries that nothing refers to.
//!
//! The index follows each operation, so a change of one service does not have to look at the others.

mod uses;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Deref,
};

use lb_common::{
    backend::Backend,
    counters::{BackendNumber, ServiceNumber},
    net::Protocol,
    pool::{Pool, PoolNumber, SlotIndex, SlotRange, SourceSetNumber},
    service::Service,
};

use self::uses::Uses;
use super::{snapshot::place, state::Grace};
use crate::{
    datapath::{Listen, Op, ServiceValue, Snapshot},
    spec::{BackendName, rules::Family},
};

/// See the [module](self). Each pair is a key and the entry that it leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Indexed {
    snapshot: Snapshot,
    names: BTreeSet<(BackendName, BackendNumber)>,
    services: BTreeSet<(String, ServiceNumber)>,
    /// Places of backends, by their counters.
    places: BTreeSet<(BackendNumber, u32)>,
    /// Places of backends, by the counters of their service.
    backends: BTreeSet<(ServiceNumber, u32)>,
    /// Listen addresses and markers, by the counters of their service.
    listens: BTreeSet<(ServiceNumber, Listen)>,
    /// How many listen addresses use each pool.
    pools: Uses<PoolNumber>,
    /// How many pools use each slot range, by its first slot.
    ranges: Uses<SlotIndex>,
    /// How many pools use each source set.
    sources: Uses<SourceSetNumber>,
}

/// An entry of the snapshot that the index depends on.
#[derive(Clone, Copy)]
enum Entry {
    BackendName(BackendNumber),
    ServiceName(ServiceNumber),
    Backend(u32),
    Slots(SlotIndex),
    Sources(SourceSetNumber),
    Pool(PoolNumber),
    Service(Listen),
    Other,
}

impl Indexed {
    /// Applies one operation.
    pub fn apply(&mut self, op: &Op) {
        let entry = Entry::of(op);
        self.unlink(entry);
        self.snapshot.apply(op);
        self.link(entry);
    }

    /// The number of a backend's counters.
    pub fn backend_number(&self, name: &BackendName) -> Option<BackendNumber> {
        let first = (name.clone(), BackendNumber::from(0));
        let named = self.names.range(first..).take_while(|(it, _)| it == name);
        named.map(|(_, number)| *number).last()
    }

    /// The names of a service's backends, found by the service part of their names.
    pub fn backend_names(&self, service: &str) -> impl Iterator<Item = (BackendNumber, &BackendName)> {
        let first = (BackendName::new(service, ""), BackendNumber::from(0));
        let named = self.names.range(first..).take_while(move |(it, _)| it.service == service);
        named.map(|(name, number)| (*number, name))
    }

    /// The numbers of the counters of a service, by its name.
    pub fn service_numbers(&self, service: &str) -> impl Iterator<Item = ServiceNumber> {
        let first = (service.to_owned(), ServiceNumber::from(0));
        let named = self.services.range(first..).take_while(move |(it, _)| it == service);
        named.map(|(_, number)| *number)
    }

    /// The backend with a name, if it has an entry.
    pub fn backend_named(&self, name: &BackendName) -> Option<&Backend> {
        let number = self.backend_number(name)?;
        let places = of(&self.places, number, 0);
        self.newest(places)
    }

    /// The backends of a service, by place.
    pub fn backends_of(&self, service: ServiceNumber) -> impl Iterator<Item = (u32, &Backend)> {
        let places = of(&self.backends, service, 0);
        places.filter_map(|place| Some((place, self.snapshot.backends.get(&place)?)))
    }

    /// The backends of a service by address, whatever their names.
    pub fn backends_by_address(&self, service: ServiceNumber) -> BTreeMap<SocketAddr, &Backend> {
        let mut places: BTreeMap<SocketAddr, &Backend> = BTreeMap::new();
        for (_, backend) in self.backends_of(service) {
            let address = SocketAddr::new(backend.address.to_ip(), backend.port.get());
            let there = places.entry(address).or_insert(backend);
            if self.age(backend) < self.age(there) {
                *there = backend;
            }
        }
        places
    }

    /// The pool of a service.
    pub fn pool(&self, service: ServiceNumber, family: Family) -> Option<PoolNumber> {
        let pools = self.listens_of(service).filter(|(listen, _)| Family::of(listen.address) == family);
        pools.map(|(_, value)| value.pool).filter(|pool| *pool != Service::NO_POOL).last()
    }

    /// The pool of a service in which backends of flows are computed.
    pub fn computed_pool(&self, service: ServiceNumber, family: Family) -> Option<PoolNumber> {
        let of_family = self.listens_of(service).filter(|(listen, _)| Family::of(listen.address) == family);
        of_family.filter_map(|(_, value)| value.computed).last()
    }

    /// Does a listen address refer to the pool? It need not exist: a takeover may copy services without their pools.
    pub fn refers_to_pool(&self, number: PoolNumber) -> bool {
        self.pools.is_used(number)
    }

    /// The pools of a service.
    pub fn pools_of(&self, service: ServiceNumber) -> BTreeMap<PoolNumber, Pool> {
        let pools = self.listens_of(service).flat_map(|(_, value)| value.pools());
        pools.filter_map(|pool| self.pools_at(pool)).collect()
    }

    /// Is the service in the maps with a different protocol?
    pub fn has_other_protocol(&self, service: ServiceNumber, protocol: Protocol) -> bool {
        self.listens_of(service).any(|(listen, _)| listen.protocol != protocol)
    }

    /// The pools that no packet can be reading.
    pub fn pools_unread(&self, grace: &Grace) -> BTreeMap<PoolNumber, Pool> {
        let unused = self.pools.unused().filter(|pool| !grace.has_pool(**pool));
        unused.filter_map(|pool| self.pools_at(*pool)).collect()
    }

    /// The part of the maps that belongs to these services alone: their backends and pools. Also the pools, slots and source
    /// sets that no packet can be reading.
    pub fn part(&self, services: impl Iterator<Item = ServiceNumber> + Clone, grace: &Grace) -> Snapshot {
        let (have, numbers) = (&self.snapshot, services.clone());
        let names = numbers.filter_map(|number| have.service_names.get(&number));
        let names = names.flat_map(|service| self.backend_names(service));
        let slots = self.ranges.unused().filter_map(|at| have.slots.get_key_value(at));
        let slots = slots.filter(|(at, ids)| !grace.has_slots(range(**at, ids.len())));
        let sources = self.sources.unused().filter(|set| !grace.has_sources(**set));
        let mut pools = self.pools_unread(grace);
        pools.extend(services.clone().flat_map(|number| self.pools_of(number)));
        let backends = || services.clone().flat_map(|number| self.backends_of(number));
        // A service that shares all flows may have the same backends.
        let is_of = |backend: &Backend, listen: &Listen| {
            have.services.get(listen).is_some_and(|it| it.counters == backend.service_counters)
        };
        let origins = backends().filter_map(|(_, it)| {
            have.origins.get_key_value(&origin(it)).filter(|(_, listen)| is_of(it, listen))
        });
        let members = pools.keys().filter_map(|number| have.members.get_key_value(number));
        Snapshot {
            backends: backends().map(|(place, it)| (place, *it)).collect(),
            origins: origins.map(|(backend, listen)| (*backend, *listen)).collect(),
            backend_names: names.map(|(number, name)| (number, name.clone())).collect(),
            slots: slots.map(|(at, ids)| (*at, ids.clone())).collect(),
            members: members.map(|(number, ids)| (*number, ids.clone())).collect(),
            sources: sources.filter_map(|set| Some((*set, have.sources.get(set)?.clone()))).collect(),
            pools,
            next_backend_id: have.next_backend_id,
            ..Snapshot::default()
        }
    }

    fn listens_of(&self, service: ServiceNumber) -> impl Iterator<Item = (Listen, ServiceValue)> {
        let listens = of(&self.listens, service, Listen::FIRST);
        listens.filter_map(|listen| Some((listen, *self.snapshot.services.get(&listen)?)))
    }

    fn pools_at(&self, number: PoolNumber) -> Option<(PoolNumber, Pool)> {
        Some((number, *self.snapshot.pools.get(&number)?))
    }

    /// An interrupted plan can leave two backends with one name or address: the old one and its replacement. Ids are
    /// assigned in increasing order, so the replacement is the one closest below the next id (modulo 2^24).
    fn newest(&self, places: impl Iterator<Item = u32>) -> Option<&Backend> {
        let backends = places.filter_map(|place| self.snapshot.backends.get(&place));
        backends.min_by_key(|backend| self.age(backend))
    }

    fn age(&self, backend: &Backend) -> u32 {
        backend.id.age(self.snapshot.next_backend_id)
    }

    /// Removes an entry from the indexes, before it changes.
    fn unlink(&mut self, entry: Entry) {
        let have = &self.snapshot;
        match entry {
            Entry::BackendName(number) => {
                if let Some(name) = have.backend_names.get(&number) {
                    self.names.remove(&(name.clone(), number));
                }
            }
            Entry::ServiceName(number) => {
                if let Some(name) = have.service_names.get(&number) {
                    self.services.remove(&(name.clone(), number));
                }
            }
            Entry::Backend(place) => {
                if let Some(backend) = have.backends.get(&place) {
                    self.places.remove(&(backend.counters, place));
                    self.backends.remove(&(backend.service_counters, place));
                }
            }
            Entry::Slots(offset) => self.ranges.delete(offset),
            Entry::Sources(set) => self.sources.delete(set),
            Entry::Pool(number) => {
                if let Some(pool) = have.pools.get(&number) {
                    if pool.slots().length != 0 {
                        self.ranges.release(pool.slots().offset);
                    }
                    if pool.sources() != SourceSetNumber::NONE {
                        self.sources.release(pool.sources());
                    }
                }
                self.pools.delete(number);
            }
            Entry::Service(listen) => {
                if let Some(service) = have.services.get(&listen) {
                    self.listens.remove(&(service.counters, listen));
                    service.pools().for_each(|pool| self.pools.release(pool));
                }
            }
            Entry::Other => {}
        }
    }

    /// Adds an entry to the indexes, after it has changed.
    fn link(&mut self, entry: Entry) {
        let have = &self.snapshot;
        match entry {
            Entry::BackendName(number) => {
                self.names.extend(have.backend_names.get(&number).map(|name| (name.clone(), number)));
            }
            Entry::ServiceName(number) => {
                self.services.extend(have.service_names.get(&number).map(|name| (name.clone(), number)));
            }
            Entry::Backend(place) => {
                if let Some(backend) = have.backends.get(&place) {
                    self.places.insert((backend.counters, place));
                    self.backends.insert((backend.service_counters, place));
                }
            }
            Entry::Slots(offset) => {
                if have.slots.contains_key(&offset) {
                    self.ranges.add(offset);
                }
            }
            Entry::Sources(set) => {
                if have.sources.contains_key(&set) {
                    self.sources.add(set);
                }
            }
            Entry::Pool(number) => {
                if let Some(pool) = have.pools.get(&number) {
                    if pool.slots().length != 0 {
                        self.ranges.acquire(pool.slots().offset);
                    }
                    if pool.sources() != SourceSetNumber::NONE {
                        self.sources.acquire(pool.sources());
                    }
                    self.pools.add(number);
                }
            }
            Entry::Service(listen) => {
                if let Some(service) = have.services.get(&listen) {
                    self.listens.insert((service.counters, listen));
                    service.pools().for_each(|pool| self.pools.acquire(pool));
                }
            }
            Entry::Other => {}
        }
    }
}

impl From<Snapshot> for Indexed {
    fn from(snapshot: Snapshot) -> Self {
        let mut entries = Vec::new();
        entries.extend(snapshot.backend_names.keys().map(|number| Entry::BackendName(*number)));
        entries.extend(snapshot.service_names.keys().map(|number| Entry::ServiceName(*number)));
        entries.extend(snapshot.backends.keys().map(|place| Entry::Backend(*place)));
        entries.extend(snapshot.slots.keys().map(|offset| Entry::Slots(*offset)));
        entries.extend(snapshot.sources.keys().map(|set| Entry::Sources(*set)));
        entries.extend(snapshot.pools.keys().map(|number| Entry::Pool(*number)));
        entries.extend(snapshot.services.keys().map(|listen| Entry::Service(*listen)));

        let mut indexed = Self { snapshot, ..Self::default() };
        entries.into_iter().for_each(|entry| indexed.link(entry));
        indexed
    }
}

impl Deref for Indexed {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Entry {
    fn of(op: &Op) -> Self {
        match op {
            Op::PutBackendName(number, _) | Op::DeleteBackendName(number) => Self::BackendName(*number),
            Op::PutServiceName(number, _) | Op::DeleteServiceName(number) => Self::ServiceName(*number),
            Op::PutBackend(backend) => Self::Backend(place(backend.id)),
            Op::DeleteBackend(place) => Self::Backend(*place),
            Op::PutSlots(offset, _) => Self::Slots(*offset),
            Op::DeleteSlots(slots) => Self::Slots(slots.offset),
            Op::PutSources(set, _) | Op::DeleteSources(set) => Self::Sources(*set),
            Op::PutPool(number, _) | Op::DeletePool(number) => Self::Pool(*number),
            Op::PutService(listen, _) | Op::DeleteService(listen) => Self::Service(*listen),
            Op::PutInterface(..)
            | Op::DeleteInterface(_)
            | Op::PutMembers(..)
            | Op::PutOrigin(..)
            | Op::DeleteOrigin(_)
            | Op::DeleteMembers(_)
            | Op::SetNextBackendId(_)
            | Op::SetHopGeneration(_)
            | Op::SetHashKey(_)
            | Op::SetQuiet(_) => Self::Other,
        }
    }
}

/// What a key leads to, in order, beginning with `first`.
fn of<K: Copy + Ord, V: Copy + Ord>(pairs: &BTreeSet<(K, V)>, key: K, first: V) -> impl Iterator<Item = V> {
    pairs.range((key, first)..).take_while(move |(it, _)| *it == key).map(|(_, value)| *value)
}

/// The key of a backend in `ORIGINS`. Only TCP flows are computed.
pub fn origin(backend: &Backend) -> Listen {
    Listen { address: backend.address.to_ip(), port: backend.port, protocol: Protocol::Tcp }
}

fn range(offset: SlotIndex, length: usize) -> SlotRange {
    SlotRange { offset, length: length as u32 }
}
