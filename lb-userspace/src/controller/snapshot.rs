//! Snapshots: how an operation changes one, and when it is safe to forward packets with one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    backend::BackendId,
    hop::InterfaceIndex,
    limits::MAX_PLACES,
    pool::{Pool, PoolNumber, SlotIndex, SlotRange, SourceSetNumber},
    service::Service,
};

use super::state::Grace;
use crate::{
    datapath::{Op, Snapshot},
    shared::Shared,
};

/// The place of an id in the `BACKENDS` array.
pub const fn place(id: BackendId) -> u32 {
    id.place(MAX_PLACES)
}

impl Snapshot {
    /// Applies one operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::PutInterface(index, interface) => drop(self.interfaces.insert(*index, *interface)),
            Op::PutBackendName(number, name) => drop(self.backend_names.insert(*number, name.clone())),
            Op::PutServiceName(number, name) => drop(self.service_names.insert(*number, name.clone())),
            Op::PutBackend(backend) => drop(self.backends.insert(place(backend.id), *backend)),
            Op::PutSlots(offset, ids) => drop(self.slots.insert(*offset, ids.clone())),
            Op::PutSources(number, sources) => drop(self.sources.insert(*number, sources.clone())),
            Op::PutMembers(number, ids) => drop(self.members.insert(*number, ids.clone())),
            Op::PutPool(number, pool) => drop(self.pools.insert(*number, *pool)),
            Op::PutService(listen, service) => drop(self.services.insert(*listen, *service)),
            Op::PutOrigin(backend, listen) => drop(self.origins.insert(*backend, *listen)),
            Op::SetNextBackendId(id) => self.next_backend_id = *id,
            Op::SetHopGeneration(generation) => self.hop_generation = *generation,
            Op::SetHashKey(key) => self.hash_key = *key,
            Op::SetQuiet(quiet) => self.quiet = *quiet,
            Op::DeleteOrigin(backend) => drop(self.origins.remove(backend)),
            Op::DeleteService(listen) => drop(self.services.remove(listen)),
            Op::DeletePool(number) => drop(self.pools.remove(number)),
            Op::DeleteMembers(number) => drop(self.members.remove(number)),
            Op::DeleteSlots(slots) => drop(self.slots.remove(&slots.offset)),
            Op::DeleteSources(number) => drop(self.sources.remove(number)),
            Op::DeleteBackend(place) => drop(self.backends.remove(place)),
            Op::DeleteServiceName(number) => drop(self.service_names.remove(number)),
            Op::DeleteBackendName(number) => drop(self.backend_names.remove(number)),
            Op::DeleteInterface(index) => drop(self.interfaces.remove(index)),
        }
    }

    /// The backend with an id.
    pub fn backend(&self, id: BackendId) -> Option<&lb_common::backend::Backend> {
        self.backends.get(&place(id)).filter(|backend| backend.id == id)
    }

    /// The ids that a pool gives new flows to.
    pub fn offered(&self, number: PoolNumber) -> &[BackendId] {
        self.pools.get(&number).map_or(&[], |pool| self.ids(*pool))
    }

    /// The ids in the slots of a pool.
    pub fn ids(&self, pool: Pool) -> &[BackendId] {
        let SlotRange { offset, length } = pool.slots();
        let ids = self.slots.get(&offset).filter(|ids| ids.len() == length as usize);
        ids.map_or(&[], |ids| ids.as_slice())
    }

    /// The pools that services use.
    pub fn pools_in_use(&self) -> BTreeSet<PoolNumber> {
        self.services.values().flat_map(|service| service.pools()).collect()
    }

    /// The ranges that pools use.
    pub fn ranges_in_force(&self) -> impl Iterator<Item = SlotRange> {
        self.pools.values().map(|pool| pool.slots()).filter(|slots| slots.length != 0)
    }

    /// The first slots of these ranges.
    pub fn slots_in_force(&self) -> BTreeSet<SlotIndex> {
        self.ranges_in_force().map(|slots| slots.offset).collect()
    }

    /// The source sets that pools use.
    pub fn sources_in_force(&self) -> BTreeSet<SourceSetNumber> {
        self.pools.values().map(|pool| pool.sources()).collect()
    }

    /// The slots that a packet may be reading: those in force, and those in their grace period.
    pub fn slots_read(&self, grace: &Grace) -> BTreeMap<SlotIndex, Shared<Vec<BackendId>>> {
        let is_read = self.reads_slots(grace);
        let slots = self.slots.iter().filter(|(at, ids)| is_read(**at, ids));
        slots.map(|(at, ids)| (*at, ids.clone())).collect()
    }

    fn reads_slots(&self, grace: &Grace) -> impl Fn(SlotIndex, &[BackendId]) -> bool {
        let in_force = self.slots_in_force();
        move |at, ids| {
            in_force.contains(&at) || grace.has_slots(SlotRange { offset: at, length: ids.len() as u32 })
        }
    }

    /// The sets of sources that a packet may be reading.
    pub fn sources_read(&self, grace: &Grace) -> BTreeMap<SourceSetNumber, Vec<IpAddr>> {
        let in_force = self.sources_in_force();
        let sets = self.sources.iter().filter(|(set, _)| in_force.contains(set) || grace.has_sources(**set));
        sets.map(|(set, sources)| (*set, sources.clone())).collect()
    }

    /// Is it safe to forward packets with this? Everything that a packet can reach exists, and belongs to the service
    /// that it was sent to.
    pub fn is_safe(&self) -> bool {
        self.fault().is_none()
    }

    /// Why it is not [safe](Snapshot::is_safe).
    pub fn fault(&self) -> Option<String> {
        let faults = [self.fault_of_services(), self.fault_of_pools(), self.fault_of_backends()];
        faults.into_iter().flatten().next()
    }

    fn fault_of_services(&self) -> Option<String> {
        self.services.iter().find_map(|(listen, service)| {
            if !self.service_names.contains_key(&service.counters) {
                return Some(format!("{listen} has counters {}, which have no name", service.counters));
            }
            if service.pool == Service::NO_POOL {
                return (listen.port.get() != 0).then(|| format!("{listen} has no pool"));
            }
            if let Some(missing) = service.pools().find(|pool| !self.pools.contains_key(pool)) {
                return Some(format!("{listen} refers to pool {missing}, which does not exist"));
            }
            let members = self.members.get(&service.pool);
            let computed = service.computed.into_iter().flat_map(|pool| self.offered(pool));
            let computed = computed.filter(|id| **id != BackendId::NONE);
            let offered = self.offered(service.pool).iter().chain(members.into_iter().flatten());
            let foreign = offered.chain(computed).find(|id| {
                self.backend(**id).is_none_or(|backend| backend.service_counters != service.counters)
            })?;
            Some(format!("{listen} reaches backend {foreign}, which does not belong to its service"))
        })
    }

    fn fault_of_pools(&self) -> Option<String> {
        // Where backends are computed, one that may have no flows has no id.
        let for_new_flows: BTreeSet<_> = self.services.values().map(|service| service.pool).collect();
        self.pools.iter().find_map(|(number, pool)| {
            let (slots, ids, set) = (pool.slots(), self.ids(*pool), pool.sources());
            if ids.len() != slots.length as usize {
                return Some(format!("pool {number} uses {slots:?}, which do not exist"));
            }
            if set != SourceSetNumber::NONE && !self.sources.contains_key(&set) {
                return Some(format!("pool {number} uses set {set} of sources, which does not exist"));
            }
            let is_missing = |id: &&BackendId| {
                let may_be_none = **id == BackendId::NONE && !for_new_flows.contains(number);
                !may_be_none && self.backend(**id).is_none()
            };
            if let Some(missing) = ids.iter().find(is_missing) {
                return Some(format!("pool {number} has a slot for backend {missing}, which does not exist"));
            }
            let missing = self.members.get(number)?.iter().find(|id| self.backend(**id).is_none())?;
            Some(format!("pool {number} has the member {missing}, which does not exist"))
        })
    }

    fn fault_of_backends(&self) -> Option<String> {
        self.backends.iter().find_map(|(at, backend)| {
            if backend.id == BackendId::NONE || place(backend.id) != *at {
                return Some(format!("backend {} is at place {at}", backend.id));
            }
            let named = self.backend_names.contains_key(&backend.counters)
                && self.service_names.contains_key(&backend.service_counters);
            if !named {
                return Some(format!("backend {} has no name", backend.id));
            }
            let leaves = backend.hop.interface;
            (leaves != InterfaceIndex::NONE && !self.interfaces.contains_key(&leaves)).then(|| {
                format!(
                    "backend {} is reached through interface {leaves}, which is not configured",
                    backend.id
                )
            })
        })
    }
}
